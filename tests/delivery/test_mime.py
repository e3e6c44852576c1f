"""The hand-joined wire form, read back by the standard library's parser."""

from binascii import b2a_qp
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.mime import alternative, mailbox

# What reaches a mail: no surrogates (they are no text), any line ends, any length.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=400)
LINE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=300)
LONG_LINE = LINE | st.builds(lambda word, n: word * n, LINE, st.integers(1, 12))

PIECES = ("a", "=", ".", " ", "\t", "\n", "\r", "\r\n", "é", "🧣", "x" * 30, "-", "y" * 1_001)


def parsed(raw: bytes) -> EmailMessage:
    message = message_from_bytes(raw, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


def unified(text: str) -> str:
    """As a mail has it: one kind of line end, and one at the end."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.endswith("\n") else text + "\n"


def part(message: EmailMessage, kind: str) -> str:
    (found,) = [p for p in message.walk() if p.get_content_type() == f"text/{kind}"]
    payload = found.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode().replace("\r\n", "\n")


@given(text=TEXT, html=TEXT)
def test_both_bodies_come_back_as_they_were(text: str, html: str) -> None:
    raw = alternative([("Subject", "x")], text=text, html=html, token="ab12")
    message = parsed(raw)
    assert message.get_content_type() == "multipart/alternative"
    assert [p.get_content_type() for p in message.iter_parts()] == ["text/plain", "text/html"]
    assert part(message, "plain") == unified(text)
    assert part(message, "html") == unified(html)
    assert message.defects == []


@given(text=st.lists(st.sampled_from(PIECES)).map("".join))
def test_lines_are_encoded_as_all_of_them_at_once_would_be(text: str) -> None:
    raw = alternative([("Subject", "x")], text="x", html=text, token="ab12")
    body = raw.partition(b"text/html")[2].partition(b"\r\n\r\n")[2]
    whole = unified(text).replace("\n", "\r\n").encode()
    assert body == b2a_qp(whole, istext=True) + b"\r\n--=_ab12--\r\n"


@given(subject=LONG_LINE, text=TEXT)
def test_any_server_takes_the_bytes(subject: str, text: str) -> None:
    raw = alternative([("Subject", subject)], text=text, html=text * 20, token="ab12")
    assert raw.isascii()
    assert b"\x00" not in raw
    assert b"\r" not in raw.replace(b"\r\n", b"")
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    head = raw.partition(b"\r\n\r\n")[0]
    assert not any(line.isspace() for line in head.split(b"\r\n"))


@given(subject=LONG_LINE)
def test_no_encoded_word_is_longer_than_allowed(subject: str) -> None:
    head = alternative([("Subject", subject + "é")], text="", html="", token="ab12").split(b"MIME")[
        0
    ]
    lines = head.split(b"\r\n")
    assert max(len(word) for line in lines for word in line.split(b" ")) <= 75  # RFC 2047 §2
    assert max(map(len, lines)) <= 76


@given(subject=LONG_LINE)
def test_subject_comes_back_as_it_was(subject: str) -> None:
    message = parsed(alternative([("Subject", subject)], text="", html="", token="ab12"))
    # A reader drops the white space around a value, and a fold stands for one space.
    assert str(message["Subject"]).split() == subject.split()


@pytest.mark.parametrize(
    "subject",
    [
        "Your receipt",
        "Größe 42 – geliefert ✓ " * 8,
        "a" * 2_000,
        "word " * 200,
        "=?utf-8?q?already?= encoded",
        "two  spaces   and more",
    ],
)
def test_subject_by_example(subject: str) -> None:
    raw = alternative([("Subject", subject)], text="", html="", token="ab12")
    assert str(parsed(raw)["Subject"]).strip() == subject.strip()


@given(name=LONG_LINE)
def test_display_name_comes_back_as_it_was(name: str) -> None:
    raw = alternative([("From", mailbox(name, "shop@example.com"))], text="", html="", token="ab12")
    # Not the parser's own `addresses`: Python 3.11 puts spaces between encoded words.
    shown, address = parseaddr(message_from_bytes(raw)["From"])
    assert address == "shop@example.com"
    assert str(make_header(decode_header(shown))).split() == name.split()


@pytest.mark.parametrize("bad", ["a\r\nBcc: eve@example.com", "a\nb", "a\rb", "a\x00b", "\x7f"])
def test_control_characters_have_no_way_into_a_header(bad: str) -> None:
    with pytest.raises(ValueError, match="control character"):
        alternative([("Subject", bad)], text="", html="", token="ab12")
    with pytest.raises(ValueError, match="control character"):
        mailbox(bad, "shop@example.com")
    with pytest.raises(ValueError, match="not ASCII"):
        mailbox("Shop", f"{bad}@example.com")


def test_address_that_is_not_ascii_is_refused() -> None:
    with pytest.raises(ValueError, match="not ASCII"):
        mailbox("", "größe@example.com")


def test_boundary_cannot_be_forged_by_a_body() -> None:
    forged = "--=_ab12--\r\n--=_ab12\r\nContent-Type: text/html\r\n\r\n<script>"
    message = parsed(alternative([("Subject", "x")], text=forged, html=forged, token="ab12"))
    assert part(message, "plain") == unified(forged)
    assert len(list(message.iter_parts())) == 2


def test_same_mail_has_the_same_bytes() -> None:
    def made() -> bytes:
        headers = [("From", mailbox("Größe", "a@example.com")), ("Subject", "Größe")]
        return alternative(headers, text="é" * 99, html="<p>é</p>" * 99, token="ab12")

    assert made() == made()

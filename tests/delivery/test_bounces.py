"""The corpus of replies, and what holds for any reply whatever it says."""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from delivery import phrases
from delivery.bounces import BounceClass, classify_reply

CORPUS = Path(__file__).parent / "corpus"

NOT_IN_REPLIES = {BounceClass.COMPLAINT, BounceClass.UNSUBSCRIBE}
OF_THE_ADDRESS = {BounceClass.HARD, BounceClass.OWNER_CHANGED}


class Line(NamedTuple):
    receiver: str
    expected: BounceClass
    text: str
    code: str


def lines() -> list[Line]:
    """Every line of the corpus."""
    found = []
    for file in sorted(CORPUS.glob("*.yaml")):
        for receiver, classes in yaml.safe_load(file.read_text(encoding="utf-8")).items():
            for name, entries in classes.items():
                for entry in entries:
                    raw = {"text": entry} if isinstance(entry, str) else entry
                    code = str(raw.get("code", ""))
                    found.append(Line(receiver, BounceClass(name), raw["text"], code))
    return found


LINES = lines()
HARD_TEXTS = sorted({line.text for line in LINES if line.expected in OF_THE_ADDRESS})
ONE_LINE = [line for line in LINES if re.match(r"\d{3} \d\.\d\.\d+ ", line.text)]

numbers = st.integers(0, 999)
texts = st.one_of(st.text(), st.sampled_from([line.text for line in LINES]))
statuses = st.builds("{}.{}.{}".format, st.integers(0, 9), numbers, numbers)
codes = st.one_of(st.text(), statuses, numbers.map(str))
temporary_statuses = st.builds("4.{}.{}".format, st.integers(0, 9), numbers)


@pytest.mark.parametrize(
    "line", LINES, ids=[f"{i}-{line.receiver}-{line.expected}" for i, line in enumerate(LINES)]
)
def test_line_of_the_corpus(line: Line) -> None:
    assert classify_reply(line.text, code=line.code) == line.expected


def test_corpus_is_large_and_knows_every_class_that_replies_have() -> None:
    assert len(LINES) >= 600
    assert len(set(LINES)) >= len(LINES) - 25  # several servers say "550 5.1.1 User unknown"
    counts = Counter(line.expected for line in LINES)
    assert set(counts) == set(BounceClass) - NOT_IN_REPLIES
    assert min(counts.values()) >= 8


def test_corpus_holds_nobodys_address() -> None:
    hosts = {host for line in LINES for host in re.findall(r"@([\w.-]+\w)", line.text)}
    assert {
        host for host in hosts if not re.search(r"(^|\.)example(\.(com|net|org))?$", host)
    } == set()


@given(text=texts, code=codes)
def test_any_reply_has_a_class(text: str, code: str) -> None:
    assert classify_reply(text, code=code) not in NOT_IN_REPLIES


@given(text=st.one_of(st.text(), st.sampled_from(HARD_TEXTS)), code=temporary_statuses)
def test_temporary_status_of_a_provider_leaves_the_address(text: str, code: str) -> None:
    assert classify_reply(text, code=code) not in OF_THE_ADDRESS
    assert classify_reply(text, code=f"450 {code}") not in OF_THE_ADDRESS


@given(
    text=st.one_of(st.text(), st.sampled_from(HARD_TEXTS)),
    basic=st.integers(400, 459),
    status=st.builds("4.{}.{}".format, st.integers(0, 7), numbers),
)
def test_temporary_status_in_the_text_leaves_the_address(
    text: str, basic: int, status: str
) -> None:
    assert classify_reply(f"{basic} {status} {text}") not in OF_THE_ADDRESS
    assert classify_reply(f"{basic} {text}") not in OF_THE_ADDRESS
    assert classify_reply(f"{status} {text}") not in OF_THE_ADDRESS


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_temporary_words_leave_the_address(text: str) -> None:
    assert classify_reply(f"{text} (temporarily)") not in OF_THE_ADDRESS


@given(code=st.text(alphabet="abc .#-/", max_size=20))
@pytest.mark.parametrize("line", [LINES[0], *LINES[40::60]])
def test_code_that_cannot_be_read_does_not_count(line: Line, code: str) -> None:
    assert classify_reply(line.text, code=code) == classify_reply(line.text)


@pytest.mark.parametrize("line", ONE_LINE, ids=[line.text[:40] for line in ONE_LINE])
def test_reply_in_many_lines_means_the_same(line: Line) -> None:
    """Servers repeat the codes in every line, and providers drop the line breaks."""
    basic, status, *words = line.text.split()
    pairs = [" ".join(words[i : i + 2]) for i in range(0, len(words), 2)]
    for end in ("\r\n", " "):
        many = end.join(f"{basic}-{status} {pair}" for pair in pairs)
        assert classify_reply(many, code=line.code) == line.expected


@pytest.mark.parametrize("status", ["5.1.1", "5.7.1", "5.2.2", "4.7.28"])
@pytest.mark.parametrize(
    "text",
    [
        "relay {}.12 closed the connection",
        "relay 10.{} closed the connection",
        "v{} of the software closed the connection",
        "Postfix {} closed the connection",
        "Postfix/{} closed the connection",
        "SpamAssassin version {} closed the connection",
        "https://example.com/{} closed the connection",
        "message <{}.7@example.com> closed the connection",
        "1{} closed the connection",
    ],
)
def test_number_that_is_no_status_does_not_count(text: str, status: str) -> None:
    # Words have the say, then: block for what names a spam filter, soft for the rest.
    assert classify_reply(text.format(status)) == classify_reply(text.format(""))


def test_number_that_is_a_status_counts_wherever_it_stands() -> None:
    for text in (
        "(#{})",
        "smtp;{}",
        '{{"status":"{}"}}',
        "[{}]",
        "550-{} x",
        "said: 550 {}.",
        "{}",
    ):
        assert classify_reply(text.format("5.1.1")) == BounceClass.HARD, text
        assert classify_reply(text.format("5.7.26")) == BounceClass.AUTH, text


def test_name_in_an_address_does_not_count() -> None:
    text = "550 5.7.1 <no.such.user.spf.failed@quota-exceeded.example.com> Delivery refused"
    assert classify_reply(text) == BounceClass.BLOCK


def test_only_the_beginning_of_a_long_reply_counts() -> None:
    assert classify_reply("550 " + "x " * 1_000 + "user unknown") == BounceClass.HARD
    assert classify_reply("550 " + "x " * 500_000 + "user unknown") == BounceClass.SOFT


@pytest.mark.parametrize(
    "part",
    [
        *("a", "a@", "5.1.1 ", "5.", "user ", "user a b ", "too many ", "sender is ", "exceed a "),
        *("spam", "not spf a ", "spf not ", "no such ", "550-", "\n", "'", "İ", "\x00", "[a] "),
    ],
)
def test_a_megabyte_of_nonsense_is_done_in_no_time(part: str) -> None:
    """No limit helps the patterns here: one that backtracks would not end within the hour."""
    text = part * (1_000_000 // len(part))
    assert classify_reply(text, code=text) not in NOT_IN_REPLIES
    words = phrases.plain_words(text)
    for pattern in vars(phrases).values():
        if isinstance(pattern, re.Pattern):
            assert pattern.search(words) is None or pattern.search(words[:1_000])

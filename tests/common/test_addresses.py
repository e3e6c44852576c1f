"""One recipient per field, found again under one form, and never shown in a log."""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import addresses
from common.addresses import Address, InvalidAddress, address_hash, mask, parse_address

LOCAL, LABEL = "a" * 64, "b" * 63


@pytest.mark.parametrize(
    ("text", "email", "normalized"),
    [
        ("ada@example.com", "ada@example.com", "ada@example.com"),
        (" ada@example.com\r\n", "ada@example.com", "ada@example.com"),
        ("Ada.L+News@Example.COM", "Ada.L+News@example.com", "ada.l+news@example.com"),
        ("ü@x.de", "ü@x.de", "ü@x.de"),
        ("u\u0308@x.de", "ü@x.de", "ü@x.de"),
        ("Ü@X.de", "Ü@x.de", "ü@x.de"),
        ("用户@例子.公司", "用户@xn--fsqu00a.xn--55qx5d", "用户@xn--fsqu00a.xn--55qx5d"),
        ("a@BÜCHER.de", "a@xn--bcher-kva.de", "a@xn--bcher-kva.de"),
        ("a@xn--bcher-kva.de", "a@xn--bcher-kva.de", "a@xn--bcher-kva.de"),
        ("a@b。de", "a@b.de", "a@b.de"),
        ("a@mail.internal", "a@mail.internal", "a@mail.internal"),
        ("a%0d%0a@b.de", "a%0d%0a@b.de", "a%0d%0a@b.de"),
    ],
)
def test_address_has_one_written_and_one_normal_form(
    text: str, email: str, normalized: str
) -> None:
    assert parse_address(text) == Address(email, normalized)
    assert parse_address(normalized).normalized == normalized


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a",
        "@b.de",
        "a@",
        '"a b"@x',
        '"a b"@x.de',
        "a@[127.0.0.1]",
        "a@[IPv6:::1]",
        "a@localhost",
        "a@b",
        "a@b.de.",
        "a@.de",
        "a@b..de",
        "a@-b.de",
        ".a@b.de",
        "a.@b.de",
        "a..b@c.de",
        "a(comment)@b.de",
        "a@b.de (comment)",
        "<a@b>",
        "<a@b.de>",
        "Ada <a@b.de>",
        "mailto:a@b.de",
        "a\x00@b.de",
        "a@b.de\x00",
        "a\u200b@b.de",
        "\u202ea@b.de",
        "a＠b.de",
        "a@" + "ü" * 60 + ".de",
    ],
)
def test_text_that_is_no_deliverable_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidAddress):
        parse_address(text)


def test_address_over_254_characters_is_refused() -> None:
    longest = f"{LOCAL}@{LABEL}.{LABEL}.{'c' * 58}.de"
    assert len(longest) == 254
    assert parse_address(longest).email == longest
    with pytest.raises(InvalidAddress):
        parse_address(f"{LOCAL}@{LABEL}.{LABEL}.{'c' * 59}.de")


@pytest.mark.parametrize(
    "between",
    [
        *(",", ";", " ", ", ", "\n", "\r\n", "\r\nBcc: ", "\t", "\x00", "\x0b", "\x0c", "\x1c"),
        *("\x85", "\xa0", "\u2028", "\u2029", "%0a", "%0d%0aBcc:", "@", "\\", "|", "<", ">"),
        *("\uff0c", "\u3001", "\uff1b"),
    ],
)
@pytest.mark.parametrize("form", ["a@b.de{}c@d.de", "<a@b.de>{}<c@d.de>", "g:a@b.de{}c@d.de;"])
def test_two_recipients_in_one_field_are_refused(form: str, between: str) -> None:
    with pytest.raises(InvalidAddress):
        parse_address(form.format(between))


def test_hash_is_keyed_with_the_address_key_alone(settings: Any) -> None:
    settings.ADDRESS_HASH_KEY, settings.SECRET_KEY = "first", "s"
    first = address_hash("ada@example.com")
    assert len(first) == 32
    assert first != hashlib.sha256(b"ada@example.com").digest()
    assert first != address_hash("bob@example.com")
    settings.SECRET_KEY = "t"
    assert address_hash("ada@example.com") == first
    settings.ADDRESS_HASH_KEY = "second"
    assert address_hash("ada@example.com") != first


@pytest.mark.parametrize(
    ("email", "shown"),
    [
        ("ada@example.com", "a***@e***"),
        ("a@b.de", "a***@b***"),
        ("no address", "n***@***"),
        ("", "***@***"),
    ],
)
def test_mask_leaves_two_letters(email: str, shown: str) -> None:
    assert mask(email) == shown


@given(
    local=st.text(alphabet="ab1.+-_%'AÜ\"", min_size=0, max_size=66),
    domain=st.sampled_from(
        [
            *("b.de", "B.de", "bücher.de", "b", "b..de", "-b.de", "x.invalid", "x.test"),
            *("[127.0.0.1]", "b" * 63 + ".de", "b" * 64 + ".de", ".".join(["b" * 60] * 4)),
        ]
    ),
)
def test_plain_local_parts_take_a_shorter_way_to_the_same_place(local: str, domain: str) -> None:
    text = f"{local}@{domain}"

    def outcome(parse: Any) -> Address | None:
        try:
            address: Address = parse(text)
        except InvalidAddress:
            return None
        return address if len(address.email) <= addresses.MAX_LENGTH else None

    assert outcome(parse_address) == outcome(addresses._validated)

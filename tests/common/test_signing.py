"""Tokens in links: made here, for this purpose, in one spelling."""

import string
from typing import Any
from uuid import UUID, uuid4

import pytest

from common.signing import read_uuid, read_uuids, sign_uuid, sign_uuids

ALPHABET = string.ascii_letters + string.digits + "-_"
# Its token starts with `_`, which the two base64 alphabets spell differently.
ONES = UUID(int=2**128 - 1)


@pytest.mark.parametrize("value", [UUID(int=0), ONES, uuid4()])
def test_token_is_read_back_and_fits_into_a_link(value: UUID) -> None:
    token = sign_uuid("unsubscribe", value)
    assert read_uuid("unsubscribe", token) == value
    assert len(token) == 43
    assert set(token) <= set(ALPHABET)


def test_token_survives_key_rotation_while_the_old_key_is_a_fallback(settings: Any) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "first", []
    token = sign_uuid("unsubscribe", ONES)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "third", ["second", "first"]
    assert read_uuid("unsubscribe", token) == ONES
    assert sign_uuid("unsubscribe", ONES) != token
    settings.SECRET_KEY_FALLBACKS = ["second"]
    assert read_uuid("unsubscribe", token) is None


@pytest.mark.parametrize("purpose", ["", "Unsubscribe", "unsubscribe ", "click"])
def test_token_for_another_purpose_is_refused(purpose: str) -> None:
    assert read_uuid(purpose, sign_uuid("unsubscribe", ONES)) is None


def test_token_with_any_character_changed_is_refused() -> None:
    token = sign_uuid("unsubscribe", uuid4())
    accepted = [
        (position, other)
        for position, character in enumerate(token)
        for other in ALPHABET.replace(character, "")
        if read_uuid("unsubscribe", f"{token[:position]}{other}{token[position + 1 :]}")
    ]
    assert accepted == []


@pytest.mark.parametrize(
    "respell",
    [
        lambda token: token + "=",
        lambda token: token + "\n",
        lambda token: " " + token,
        lambda token: token[:20] + "\n" + token[20:],
        lambda token: token.replace("_", "/"),
        lambda token: token.replace("_", "%5F"),
        lambda token: token.swapcase(),
        lambda token: token + "A",
        lambda token: token + token,
        lambda token: token[:-1],
        lambda token: token[:22],
        lambda token: token + "\x00",
        lambda token: token.replace("_", "＿"),
        lambda token: token[:-1] + "é",
        lambda token: str(ONES),
        lambda token: "",
    ],
)
def test_other_spelling_of_a_token_is_refused(respell: Any) -> None:
    token = sign_uuid("unsubscribe", ONES)
    assert respell(token) != token
    assert read_uuid("unsubscribe", respell(token)) is None


def test_token_for_several_ids_is_read_back_in_their_order() -> None:
    first, second = uuid4(), uuid4()
    token = sign_uuids("click", first, second)
    assert read_uuids("click", token, count=2) == (first, second)
    assert len(token) == 64
    assert token != sign_uuids("click", second, first)
    assert read_uuids("click", token, count=1) is None
    assert read_uuids("click", sign_uuid("click", first), count=2) is None

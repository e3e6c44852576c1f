"""Addresses that name one message: in MAIL FROM, and in List-Unsubscribe."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from common.signing import read_uuid_caseless, sign_uuid_caseless
from delivery.departures import build_outbound
from delivery.headers import headers_of
from delivery.models import Message
from delivery.return_paths import (
    RETURN_PATH,
    UNSUBSCRIBE_MAIL,
    return_path,
    takes_a_token,
    uuids_in_addresses,
)
from tests.factories import MessageFactory

ONES = UUID(int=2**128 - 1)


@pytest.fixture(autouse=True)
def _addresses(settings: Any) -> None:
    settings.BOUNCE_ADDRESS = "bounces@mail.example.com"
    settings.UNSUBSCRIBE_ADDRESS = "unsub@mail.example.com"


def found(text: str, purpose: str = RETURN_PATH) -> list[UUID]:
    return list(uuids_in_addresses(purpose, text))


@pytest.mark.parametrize("uuid", [UUID(int=0), ONES, uuid4()])
def test_address_is_one_that_every_server_takes(uuid: UUID) -> None:
    address = return_path(uuid, "shop@example.com")
    local, _, domain = address.partition("@")
    assert len(local) <= 64
    assert domain == "mail.example.com"
    assert address == address.lower()
    assert found(address) == [uuid]


def test_local_part_of_the_greatest_length_still_fits(settings: Any) -> None:
    settings.BOUNCE_ADDRESS = "b" * 23 + "@mail.example.com"
    assert takes_a_token(settings.BOUNCE_ADDRESS)
    assert len(return_path(ONES, "").partition("@")[0]) == 64
    assert not takes_a_token("b" + settings.BOUNCE_ADDRESS)


def test_address_is_found_however_it_comes_back() -> None:
    address = return_path(ONES, "")
    local = address.partition("@")[0]
    for form in (
        address.upper(),
        f"<{address}>",
        f"Delivered-To: {address}\nTo: other@example.com",
        f"SRS0=AbCd=W2=mail.example.com={local}@forward.example.org",
        f"prvs=1234abcdef={local}@example.org",
        f"rfc822; {local.replace('+', '-')}@mail.example.com",
    ):
        assert found(form) == [ONES], form


def test_forged_token_names_nothing() -> None:
    token = sign_uuid_caseless(RETURN_PATH, ONES)
    assert found(f"bounces+{token}@x") == [ONES]
    for position in range(len(token)):
        other = "b" if token[position] == "a" else "a"
        assert found(f"bounces+{token[:position]}{other}{token[position + 1 :]}@x") == []
    for wrong in (token[:-1], token + "a", "", "é" * 40, "1" * 40, token[:-1] + "="):
        assert read_uuid_caseless(RETURN_PATH, wrong) is None


def test_token_for_one_purpose_is_none_for_the_other() -> None:
    assert found(sign_uuid_caseless(UNSUBSCRIBE_MAIL, ONES)) == []
    assert found(sign_uuid_caseless(RETURN_PATH, ONES), UNSUBSCRIBE_MAIL) == []


def test_token_outlives_its_key_while_that_is_a_fallback(settings: Any) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "first", []
    address = return_path(ONES, "")
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "second", ["first"]
    assert found(address) == [ONES]
    settings.SECRET_KEY_FALLBACKS = []
    assert found(address) == []


def outbound_of(message: Message) -> Any:
    return build_outbound(
        message,
        sender=message.sender,
        provider=message.sender.provider,
        address=message.email,
        has_metadata=True,
    )


@pytest.mark.django_db
def test_return_path_changes_the_envelope_and_not_a_byte_of_the_mail(settings: Any) -> None:
    message = MessageFactory(state="queued")
    settings.BOUNCE_ADDRESS = ""
    without = outbound_of(message)
    assert without.email.envelope == (message.sender.email, message.email)
    settings.BOUNCE_ADDRESS = "bounces@mail.example.com"
    tagged = outbound_of(message)
    sender, recipient = tagged.email.envelope
    assert found(sender) == [message.pk]
    assert recipient == message.email
    assert tagged.email.wire == without.email.wire
    assert tagged.wire_hash == without.wire_hash
    assert tagged.email.from_email == without.email.from_email


@pytest.mark.django_db
def test_way_out_by_mail_stands_behind_the_one_over_https(settings: Any) -> None:
    message = MessageFactory(stream="marketing")
    ways = headers_of(message, message.sender)["List-Unsubscribe"].split(", ")
    assert ways[0].startswith(f"<{settings.PUBLIC_URL}/u/")
    assert ways[1].startswith("<mailto:unsub+")
    assert found(ways[1], UNSUBSCRIBE_MAIL) == [message.pk]
    settings.UNSUBSCRIBE_ADDRESS = ""
    assert headers_of(message, message.sender)["List-Unsubscribe"] == ways[0]

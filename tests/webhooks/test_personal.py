"""Receipts that name people who are being erased, or were."""

import base64
import json
import time
from typing import Any

import pytest
from django.db.models.functions import Now

from common.addresses import address_hash
from contacts.dsar import begin_erasure, continue_erasures, personal_copy
from contacts.models import Consent, Contact, Erasure, Subscription
from delivery.models import Message
from events.models import Event
from suppression.models import Suppression
from tests.contacts.people import ADDRESS, CANARY, contact, tables_with
from tests.factories import ContactFactory, MessageFactory, TopicFactory
from webhooks.models import Receipt
from webhooks.receipts import NewReceipt, keep_receipts
from webhooks.services import drain_receipts

__all__ = ["contact"]

pytestmark = [pytest.mark.django_db, pytest.mark.unaudited]


def drain() -> None:
    while drain_receipts(budget=5):
        pass


def try_again() -> int:
    Erasure.objects.update(next_at=Now())
    return continue_erasures()


def complaint(message: Message, address: str, **more: Any) -> bytes:
    """SendGrid's."""
    told = {"event": "spamreport", "email": address, "timestamp": int(time.time())}
    return json.dumps({**told, "message_uuid": str(message.pk), **more}).encode()


def test_pending_receipt_is_applied_before_it_is_emptied(contact: Contact) -> None:
    other = MessageFactory(stream="marketing", topic=TopicFactory(), state="sent")
    body = complaint(other, other.email, category=[f"forwarded by {ADDRESS}"])
    keep_receipts([NewReceipt("sendgrid", "b2", body)])
    receipt = Receipt.objects.get(provider="sendgrid")
    begin_erasure(contact, source="test")
    assert continue_erasures() == 0
    receipt.refresh_from_db()
    assert (receipt.state, bytes(receipt.body)) == ("pending", body)
    erasure = Erasure.objects.get()
    assert (erasure.finished_at, erasure.last_error) == (
        None,
        "1 receipts that name them are not applied yet",
    )
    drain()
    rows = Suppression.objects.filter(address_hash=address_hash(other.email_normalized))
    assert list(rows.values_list("reason", flat=True)) == ["complaint"]
    assert try_again() == 1
    receipt.refresh_from_db()
    assert (receipt.state, bytes(receipt.body)) == ("applied", b"")
    assert tables_with(CANARY) == {}


def test_dead_receipt_is_emptied_and_stays_dead(contact: Contact) -> None:
    body = ADDRESS.encode()
    Receipt.objects.create(provider="postal", provider_event_id="d", body=body, state="dead")
    begin_erasure(contact, source="test")
    assert continue_erasures() == 1
    dead = Receipt.objects.get(provider="postal")
    assert (dead.state, bytes(dead.body), dead.error) == ("dead", b"", "erased")


@pytest.mark.parametrize("event", ["spamreport", "bounce", "group_unsubscribe", "open"])
def test_what_comes_after_the_erasure_names_nobody(contact: Contact, event: str) -> None:
    message = Message.objects.get(contact=contact, stream="marketing")
    begin_erasure(contact, source="test")
    continue_erasures()
    events = Event.objects.count()
    body = complaint(message, ADDRESS, event=event, reason=f"550 no such user {ADDRESS}")
    keep_receipts([NewReceipt("sendgrid", "late", body)])
    drain()
    assert tables_with(CANARY) == {}
    receipt = Receipt.objects.get(provider="sendgrid")
    assert (receipt.state, bytes(receipt.body)) == ("applied", b"")
    assert receipt.outcome[0]["message"] == str(message.pk)
    assert not any(effect.startswith("withdrawn") for effect in receipt.outcome[0]["effects"])
    assert not Consent.objects.exists()
    assert not Subscription.objects.exists()
    assert Event.objects.count() == events
    contact.refresh_from_db()
    assert contact.engaged_at is None


def test_late_word_of_an_address_without_a_message_is_emptied_too(contact: Contact) -> None:
    begin_erasure(contact, source="test")
    continue_erasures()
    told = {"event": "spamreport", "email": ADDRESS, "timestamp": int(time.time())}
    keep_receipts([NewReceipt("sendgrid", "late", json.dumps(told).encode())])
    drain()
    assert tables_with(CANARY) == {}
    assert bytes(Receipt.objects.get(provider="sendgrid").body) == b""


def test_late_word_of_a_message_without_the_address_is_emptied_too(contact: Contact) -> None:
    message = Message.objects.get(contact=contact, stream="marketing")
    begin_erasure(contact, source="test")
    continue_erasures()
    told = {"event": "open", "timestamp": int(time.time()), "ip": "198.51.100.7"}
    body = json.dumps({**told, "message_uuid": str(message.pk)}).encode()
    keep_receipts([NewReceipt("sendgrid", "late", body)])
    drain()
    assert bytes(Receipt.objects.get(provider="sendgrid").body) == b""


def test_receipt_of_somebody_else_keeps_its_words(contact: Contact) -> None:
    other = MessageFactory(stream="marketing", topic=TopicFactory(), state="sent")
    begin_erasure(contact, source="test")
    continue_erasures()
    body = complaint(other, other.email)
    keep_receipts([NewReceipt("sendgrid", "o", body)])
    drain()
    assert bytes(Receipt.objects.get(provider="sendgrid").body) == body
    assert Suppression.objects.get(reason="complaint").email == other.email


SPELLINGS = {
    "json escape": json.dumps(ADDRESS).replace("@", "\\u0040").encode(),
    "json in json": json.dumps(json.dumps(ADDRESS).replace("@", "\\u0040")).encode(),
    "after an escaped line end": json.dumps(f"to\n{ADDRESS}").encode(),
    "after an escaped bracket": b"\\u003c" + ADDRESS.encode(),
    "quoted-printable": b"<" + ADDRESS.replace("@", "=40").replace("+", "=2B").encode(),
    "after a quoted-printable bracket": b"=3C" + ADDRESS.encode(),
    "entity": ADDRESS.replace("@", "&#64;").encode(),
    "entity, hexadecimal": ADDRESS.replace("@", "&#x40;").encode(),
    "percent": ADDRESS.replace("@", "%40").replace("+", "%2b").encode(),
    "percent, twice": ADDRESS.replace("@", "%2540").replace("+", "%252B").encode(),
    "after bytes that are no ASCII": "„".encode() + ADDRESS.encode(),
    "upper case": ADDRESS.upper().encode(),
    **{
        f"base64 behind {n} bytes, with line breaks": base64.encodebytes(
            b"<" * n + ADDRESS.encode() + b"> said so, and more words that fill the line"
        )
        for n in (0, 1, 2, 40, 41, 42)
    },
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_receipt_is_found_in_every_spelling(contact: Contact, spelling: str) -> None:
    row = Receipt.objects.create(
        provider="postal", provider_event_id="s", body=SPELLINGS[spelling], state="applied"
    )
    begin_erasure(contact, source="test")
    assert continue_erasures() == 1
    row.refresh_from_db()
    assert bytes(row.body) == b""


@pytest.mark.parametrize(
    "words",
    [
        f"x{ADDRESS}",
        f"{ADDRESS}.au",
        f"?email=ab{ADDRESS}",
        f"{ADDRESS}x",
        f"second-{ADDRESS}",
        ADDRESS.replace("@", "=41"),
    ],
)
def test_receipt_of_a_similar_address_is_not_touched(contact: Contact, words: str) -> None:
    row = Receipt.objects.create(
        provider="postal", provider_event_id="s", body=words.encode(), state="applied"
    )
    begin_erasure(contact, source="test")
    continue_erasures()
    row.refresh_from_db()
    assert bytes(row.body) == words.encode()


@pytest.mark.parametrize(
    ("address", "spelt"),
    [
        ("jörg.kanarien@example.com", "JÖRG.kanarien@example.com".encode()),
        ("jörg.kanarien@example.com", json.dumps("jörg.kanarien@example.com").encode()),
        ("jörg.kanarien@example.com", b"j%C3%B6rg.kanarien%40example.com"),
        ("jörg.kanarien@example.com", b"j=C3=B6rg.kanarien=40example.com"),
        ("jörg.kanarien@example.com", b"j&#246;rg.kanarien@example.com"),
        ("kanarien@münchen.example", "kanarien@münchen.example".encode()),
        ("kanarien@münchen.example", b"kanarien@xn--mnchen-3ya.example"),
    ],
)
def test_address_that_is_no_ascii_is_found(address: str, spelt: bytes) -> None:
    person = ContactFactory(email=address)
    row = Receipt.objects.create(
        provider="postal", provider_event_id="s", body=spelt, state="applied"
    )
    begin_erasure(person, source="test")
    assert continue_erasures() == 1
    row.refresh_from_db()
    assert bytes(row.body) == b""


def test_copy_of_a_receipt_tells_of_nobody_else(contact: Contact) -> None:
    other = MessageFactory(contact__email="other@example.com")
    mine = Message.objects.get(contact=contact, stream="marketing")
    entry = {"class": "", "effects": []}
    Receipt.objects.create(
        provider="sendgrid",
        provider_event_id="batch",
        body=json.dumps([{"email": ADDRESS}, {"email": "other@example.com"}]).encode(),
        state="applied",
        outcome=[
            {**entry, "kind": "opened", "message": str(mine.pk)},
            {**entry, "kind": "complained", "message": str(other.pk)},
        ],
    )
    (row,) = [row for row in personal_copy(contact)["receipts"] if row["provider"] == "sendgrid"]
    assert row["outcome"] == [{**entry, "kind": "opened", "message": str(mine.pk)}]
    assert "other@example.com" not in json.dumps(row, default=str)


def test_copy_has_what_a_receipt_told_of_them_by_their_message(contact: Contact) -> None:
    mine = Message.objects.get(contact=contact, stream="marketing")
    Receipt.objects.create(
        provider="sendgrid",
        provider_event_id="one",
        body=b'{"event": "open", "ip": "198.51.100.7"}',
        state="applied",
        outcome=[{"kind": "opened", "class": "", "message": str(mine.pk), "effects": []}],
    )
    (row,) = [row for row in personal_copy(contact)["receipts"] if row["provider"] == "sendgrid"]
    assert row["body"] == {"event": "open", "ip": "198.51.100.7"}

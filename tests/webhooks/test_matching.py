"""Whom a piece of feedback is about: what is named in it was written by others."""

import json
import time
from typing import Any

import pytest

from common.addresses import address_hash, parse_address
from contacts.dsar import begin_erasure, continue_erasures
from delivery.models import Attempt, Message
from suppression.models import Suppression
from tests.factories import MessageFactory, ProviderFactory
from tests.webhooks.mails import sent_through
from tests.webhooks.test_feedback import about, hard
from webhooks.feedback import FeedbackKind, apply_feedback
from webhooks.models import Receipt
from webhooks.receipts import NewReceipt, keep_receipts
from webhooks.services import drain_receipts

pytestmark = pytest.mark.django_db

STRANGER = "ceo@victim.example"


def suppressed() -> set[str]:
    return set(Suppression.objects.values_list("email", flat=True))


def told(provider: str, document: Any) -> Receipt:
    keep_receipts([NewReceipt(provider, "1", json.dumps(document).encode())])
    while drain_receipts(budget=10):
        pass
    return Receipt.objects.get()


def handed_over_to(message: Message, email: str) -> None:
    Attempt.objects.filter(message=message).update(address_hash=address_hash(email))


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_address_nobody_was_mailed_at_is_not_believed(attempts: int) -> None:
    message = sent_through("postmark", attempts=attempts)
    handed_over_to(message, "ada@example.com")
    apply_feedback([hard(message, address=parse_address(STRANGER))])
    assert suppressed() == {"ada@example.com"}


def test_address_of_an_earlier_hand_over_is_believed() -> None:
    message = sent_through("postmark", attempts=1)
    handed_over_to(message, "old@example.com")
    apply_feedback([hard(message, address=parse_address("Old@Example.com"))])
    assert suppressed() == {"Old@example.com"}


def test_nothing_named_brings_an_erased_address_back() -> None:
    message = sent_through("postmark")
    begin_erasure(message.contact, source="test")
    assert continue_erasures() == 1
    assert not Attempt.objects.exclude(address_hash=None).exists()
    (outcome,) = apply_feedback([hard(message, address=parse_address("ada@example.com"))])
    assert outcome["effects"] == ["bounced_at", "no_address", "forgotten"]
    assert suppressed() <= {""}


@pytest.mark.parametrize("attempts", [1, 2])
@pytest.mark.parametrize("has_headers", [True, False])
def test_bounce_at_ses_suppresses_whom_the_mail_was_for(attempts: int, has_headers: bool) -> None:
    """Whatever the server that returned it wrote as its final recipient."""
    message = sent_through("ses", attempts=attempts, esp_id="m-1")
    metadata = {"name": "X-Metadata", "value": json.dumps({"message_uuid": str(message.pk)})}
    event = {
        "notificationType": "Bounce",
        "bounce": {
            "bounceType": "Permanent",
            "bounceSubType": "General",
            "feedbackId": "f",
            "timestamp": "2026-11-29T00:00:00Z",
            "bouncedRecipients": [{"emailAddress": STRANGER, "status": "5.1.1"}],
        },
        "mail": {
            "messageId": "m-1",
            "destination": ["Ada@example.com"],
            "headers": [metadata] if has_headers else [],
        },
    }
    receipt = told("ses", {"Type": "Notification", "Message": json.dumps(event)})
    assert receipt.outcome[0]["message"] == str(message.pk)
    assert {email.lower() for email in suppressed()} == {"ada@example.com"}


def test_bounce_of_a_mail_to_several_names_one_of_them_or_nobody() -> None:
    def bounce(number: int, named: str) -> dict[str, Any]:
        bounced = [{"emailAddress": named, "status": "5.1.1"}]
        return {
            "notificationType": "Bounce",
            "bounce": {
                "bounceType": "Permanent",
                "bounceSubType": "General",
                "bouncedRecipients": bounced,
            },
            "mail": {"messageId": f"m-{number}", "destination": ["a@x.example", "b@x.example"]},
        }

    for number, named in enumerate((STRANGER, "b@x.example")):
        document = {"Type": "Notification", "Message": json.dumps(bounce(number, named))}
        keep_receipts([NewReceipt("ses", str(number), json.dumps(document).encode())])
    while drain_receipts(budget=10):
        pass
    assert suppressed() == {"b@x.example"}


def test_number_of_another_postal_server_is_not_ours() -> None:
    message = sent_through("postal", esp_id="12")
    theirs = {
        "id": 12,
        "direction": "outgoing",
        "message_id": "somebody-elses@x.example",
        "to": "stranger@example.net",
    }
    receipt = told(
        "postal",
        {
            "event": "MessageDeliveryFailed",
            "timestamp": time.time(),
            "uuid": "u-1",
            "payload": {
                "status": "HardFail",
                "output": "550 5.1.1 no such user",
                "message": theirs,
            },
        },
    )
    assert receipt.outcome[0]["message"] is None
    assert receipt.state == "applied"  # and not looked at again: it cannot become ours
    assert suppressed() == {"stranger@example.net"}
    # Not either where it names one of our people: another application may write to them, too.
    theirs["to"] = "ada@example.com"
    Receipt.objects.all().delete()
    receipt = told(
        "postal",
        {
            "event": "MessageSent",
            "timestamp": time.time(),
            "uuid": "u",
            "payload": {"message": theirs},
        },
    )
    assert receipt.outcome[0]["message"] is None
    message.refresh_from_db()
    assert message.delivered_at is None


def test_providers_id_counts_with_the_address_only() -> None:
    provider = ProviderFactory(key="pm", backend="postmark")
    message = MessageFactory(state="sent", provider=provider, esp_id="7")
    own, other = parse_address(message.email), parse_address(STRANGER)
    for address, expected in ((other, None), (None, None), (own, str(message.pk))):
        piece = about(None, FeedbackKind.DELIVERED, esp_id="7", address=address)
        (outcome,) = apply_feedback([piece])
        assert outcome["message"] == expected
    handed_over_to(message, STRANGER)
    (outcome,) = apply_feedback([hard(None, esp_id="7", address=other)])
    assert outcome["message"] == str(message.pk)
    assert suppressed() == {STRANGER}


def test_providers_id_of_two_messages_is_nobodys() -> None:
    """Two accounts at one provider, each of which counts for itself."""
    pairs = [
        MessageFactory(
            state="sent",
            email="ada@example.com",
            email_normalized="ada@example.com",
            provider=ProviderFactory(key=key, backend="postmark"),
            esp_id="7",
        )
        for key in ("one", "two")
    ]
    address = parse_address("ada@example.com")
    (outcome,) = apply_feedback([hard(None, esp_id="7", address=address)])
    assert outcome["message"] is None
    # Each by our own id is found as ever.
    for message in pairs:
        (outcome,) = apply_feedback([hard(message, esp_id="7", address=address)])
        assert outcome["message"] == str(message.pk)

"""Receipts about messages that nobody knows, or not yet."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F

from common.addresses import address_hash, parse_address
from common.clock import now
from common.ids import uuid7
from contacts.models import Consent, Subscription
from contacts.services import record_consent
from contacts.states import ConsentState
from delivery.models import Message
from emailauto.sweep import sweep
from suppression.models import Suppression
from suppression.services import lift_unsubscribes
from suppression.states import MARKETING
from tests.factories import TopicFactory
from tests.webhooks.mails import sent_through
from tests.webhooks.postmark import call, payload
from webhooks.feedback import Feedback, FeedbackKind, apply_feedback
from webhooks.models import Receipt
from webhooks.services import LOOKS, MAX_ATTEMPTS, drain_receipts, replay_receipts

pytestmark = pytest.mark.django_db


def drain() -> None:
    while drain_receipts(budget=10):
        pass


def age_by(age: timedelta) -> None:
    Receipt.objects.update(received_at=F("received_at") - age, due_at=F("due_at") - age)


def test_receipt_told_before_the_providers_id_was_stored_is_matched_later() -> None:
    message = sent_through("postmark", esp_id="")
    call(payload("delivery", None, MessageID="told-early", Metadata={}))
    drain()
    receipt = Receipt.objects.get()
    assert receipt.state == "parked"
    assert now() < receipt.due_at <= receipt.received_at + LOOKS[0]
    Message.objects.filter(pk=message.pk).update(esp_id="told-early")
    age_by(LOOKS[0])
    assert "feedback" in sweep()
    drain()
    receipt.refresh_from_db()
    message.refresh_from_db()
    assert receipt.state == "applied"
    assert message.delivered_at is not None


def test_parked_receipt_suppresses_at_once() -> None:
    call(payload("bounce_HardBounce", None, MessageID="of-others", Metadata={}))
    drain()
    assert Receipt.objects.get().state == "parked"
    assert Suppression.objects.get().reason == "hard_bounce"


def test_search_ends_after_three_days() -> None:
    call(payload("delivery", None, MessageID="of-others", Metadata={}))
    looks = 0
    while True:
        drain()
        receipt = Receipt.objects.get()
        if receipt.state == "applied":
            break
        looks += 1
        age_by(receipt.due_at - now())
    assert looks == len(LOOKS)
    assert receipt.outcome[0]["message"] is None


def test_parked_receipts_go_in_batches_like_fresh_ones() -> None:
    for number in range(5):
        call(payload("delivery", None, MessageID=f"of-others-{number}", Metadata={}))
    drain()
    assert set(Receipt.objects.values_list("state", "attempts")) == {("parked", 0)}


UNSUBSCRIBED = {"SuppressSending": True, "SuppressionReason": "ManualSuppression"}


def unsubscribed(email: str, **fields: Any) -> None:
    """Told by the provider, of a mail that nobody here knows."""
    call(
        {
            "RecordType": "SubscriptionChange",
            "MessageID": "of-others",
            "Recipient": email,
            "ChangedAt": "2026-02-01T10:53:34Z",
            "Metadata": {},
            **UNSUBSCRIBED,
            **fields,
        }
    )
    drain()


def test_no_later_look_undoes_what_was_lifted_meanwhile() -> None:
    unsubscribed("ada@example.com")
    call(payload("bounce_HardBounce", None, MessageID="x", Email="bob@example.com", Metadata={}))
    drain()
    assert set(Suppression.objects.values_list("reason", flat=True)) == {
        "unsubscribe",
        "hard_bounce",
    }
    lift_unsubscribes([address_hash("ada@example.com")], [MARKETING])
    Suppression.objects.all().delete()  # an operator's doing
    for look in LOOKS:
        age_by(look)
        drain()
        assert not Suppression.objects.exists()
    assert set(Receipt.objects.values_list("state", flat=True)) == {"applied"}


def test_later_look_that_fails_and_is_replayed_undoes_nothing_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unsubscribed("ada@example.com")
    lift_unsubscribes([address_hash("ada@example.com")], [MARKETING])
    age_by(LOOKS[0])
    with monkeypatch.context() as broken:
        broken.setattr("webhooks.services.apply_feedback", lambda told: 1 / 0)
        for _ in range(MAX_ATTEMPTS):
            drain()
            Receipt.objects.update(due_at=now())
    assert replay_receipts([Receipt.objects.get().pk]) == 1
    drain()
    assert not Suppression.objects.exists()


def test_later_look_still_does_what_the_message_is_needed_for() -> None:
    """The consent to its topic, and the address where none could be read."""
    message = sent_through("postmark", esp_id="")
    unsubscribed("ada@example.com", MessageID="told-early")
    assert not Consent.objects.filter(topic=message.topic).exists()
    Message.objects.filter(pk=message.pk).update(esp_id="told-early")
    age_by(LOOKS[0])
    drain()
    assert Consent.objects.get(topic=message.topic).state == "withdrawn"
    message.refresh_from_db()
    assert message.unsubscribed_at is not None


def test_later_look_finds_the_address_that_was_not_told() -> None:
    uuid = uuid7()
    unsubscribed("no address", Metadata={"message_uuid": str(uuid)})
    assert Receipt.objects.get().outcome[0]["effects"] == ["no_address"]
    sent_through("postmark", id=uuid)
    age_by(LOOKS[0])
    drain()
    assert Suppression.objects.get().email == "ada@example.com"


@pytest.mark.parametrize("kind", ["unsubscribe", "complaint"])
@pytest.mark.parametrize(("grants", "expected"), [(True, set()), (False, {"marketing"})])
def test_what_waited_longer_than_the_person_is_not_acted_on(
    kind: str, grants: bool, expected: set[str]
) -> None:
    message = sent_through("postmark")
    record_consent(message.contact, message.topic, ConsentState.GRANTED, source="before")
    if kind == "complaint":
        call(payload("spam_complaint", message))
    else:
        call(payload("subscription_change_unsubscribe", message))
    if grants:
        record_consent(message.contact, message.topic, ConsentState.GRANTED, source="page")
    drain()
    assert set(Suppression.objects.values_list("scope", flat=True)) == expected
    state = Subscription.objects.get().state
    assert state == ("granted" if grants else "withdrawn")
    told = [effect for entry in Receipt.objects.get().outcome for effect in entry["effects"]]
    assert ("outdated" in told) == grants


def test_hard_bounce_is_not_outdated_by_a_wish() -> None:
    message = sent_through("postmark")
    call(payload("bounce_HardBounce", message))
    record_consent(message.contact, message.topic, ConsentState.GRANTED, source="page")
    drain()
    assert Suppression.objects.get().reason == "hard_bounce"


def test_wish_for_one_topic_keeps_the_unsubscribe_from_another() -> None:
    message = sent_through("postmark")
    other = TopicFactory(key="other")
    record_consent(message.contact, other, ConsentState.GRANTED, source="page")
    ages_ago = now() - timedelta(days=1)
    address = parse_address(message.email)
    told = [
        Feedback(
            FeedbackKind.UNSUBSCRIBED,
            ages_ago,
            "list",
            address=address,
            scope=scope,
            known_at=ages_ago,
        )
        for scope in ("topic:news", "topic:other", "marketing")
    ]
    apply_feedback(told)
    assert set(Suppression.objects.values_list("scope", flat=True)) == {"topic:news"}

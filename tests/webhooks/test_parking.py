"""Receipts about messages that nobody knows, or not yet."""

from datetime import timedelta

import pytest
from django.db.models import F

from common.clock import now
from delivery.models import Message
from emailauto.sweep import sweep
from suppression.models import Suppression
from tests.webhooks.mails import sent_through
from tests.webhooks.postmark import call, payload
from webhooks.models import Receipt
from webhooks.services import LOOKS, drain_receipts

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

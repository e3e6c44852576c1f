"""Draining receipts: batches, bad ones among them, crashes, replay."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from delivery.models import Message
from suppression.models import Suppression
from tests.factories import MessageFactory
from tests.webhooks.postmark import call, payload
from webhooks import services
from webhooks.models import Receipt
from webhooks.receipts import NewReceipt, keep_receipts
from webhooks.services import drain_receipts, replay_receipts
from webhooks.tasks import drain_feedback

pytestmark = pytest.mark.django_db

POISON = [NewReceipt("postmark", "poison", b"[]")]


def drain() -> None:
    while drain_receipts(budget=10):
        pass


def make_due() -> None:
    """Let the time pass that a failed receipt waits, or a dead worker's lease lasts."""
    hour = timedelta(hours=1)
    Receipt.objects.update(due_at=F("due_at") - hour, claimed_until=F("claimed_until") - hour)


def claim() -> list[int]:
    """What a worker does before it dies."""
    fresh, tried = (services._CLAIM.format(which=which) for which in "=>")
    taken = list(Receipt.objects.raw(fresh, ["a dead worker", 120, 100]))
    taken = taken or list(Receipt.objects.raw(tried, ["a dead worker", 120, 1]))
    return [receipt.pk for receipt in taken]


def test_task_drains_the_lane() -> None:
    message = MessageFactory(state="sent")
    call(payload("delivery", message))
    drain_feedback()
    assert Receipt.objects.get().state == "applied"
    assert Message.objects.get().delivered_at is not None


def test_bad_receipt_does_not_sink_its_neighbours() -> None:
    messages = [MessageFactory(state="sent") for _ in range(3)]
    for number, message in enumerate(messages[:2]):
        call(payload("bounce_HardBounce", message, ID=number))
    keep_receipts(POISON)
    call(payload("bounce_HardBounce", messages[2], ID=3))
    drain()
    assert Message.objects.filter(bounced_at__isnull=False).count() == 3
    assert Suppression.objects.count() == 3
    poison = Receipt.objects.get(provider_event_id="poison")
    assert (poison.state, poison.attempts, poison.lease_owner) == ("pending", 1, "")
    assert "Malformed" in poison.error
    assert not Receipt.objects.due().exists()


def test_receipt_is_dead_after_five_attempts_and_can_be_replayed() -> None:
    keep_receipts(POISON)
    for _ in range(7):
        drain()
        make_due()
    receipt = Receipt.objects.get()
    assert (receipt.state, receipt.attempts) == ("dead", 5)
    assert receipt.error.startswith("Traceback")
    Receipt.objects.update(body=b'{"RecordType": "Delivery"}')
    assert replay_receipts([receipt.pk]) == 1
    assert replay_receipts([receipt.pk]) == 0
    drain()
    receipt.refresh_from_db()
    assert (receipt.state, receipt.error) == ("applied", "")


def test_receipt_of_a_provider_that_is_gone_is_kept() -> None:
    Receipt.objects.create(provider="gone", provider_event_id="1", body=b"{}")
    drain()
    assert "KeyError" in Receipt.objects.get().error


def test_receipts_of_a_dead_worker_are_taken_over_one_at_a_time() -> None:
    for number in range(3):
        call(payload("bounce_SoftBounce", MessageFactory(state="sent"), ID=number))
    assert len(claim()) == 3
    drain()
    assert set(Receipt.objects.values_list("state", flat=True)) == {"pending"}
    make_due()
    assert len(claim()) == 1
    drain()
    assert sorted(Receipt.objects.values_list("state", flat=True)) == [
        "applied",
        "applied",
        "pending",
    ]


def test_receipt_that_kills_every_worker_ends_dead() -> None:
    call(payload("delivery"))
    for _ in range(5):
        claim()
        make_due()
    drain()
    receipt = Receipt.objects.get()
    assert (receipt.state, receipt.attempts) == ("dead", 5)
    assert receipt.error == "The worker died in every attempt."


def test_worker_that_lost_its_lease_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    call(payload("delivery"))

    def lose_the_lease(feedback: Any) -> list[dict[str, Any]]:
        Receipt.objects.update(lease_owner="another worker", attempts=2)
        return [{} for _ in feedback]

    monkeypatch.setattr(services, "apply_feedback", lose_the_lease)
    services._work(limit=10, tried=False)
    receipt = Receipt.objects.get()
    assert (receipt.state, receipt.lease_owner, receipt.outcome) == (
        "pending",
        "another worker",
        [],
    )


def test_receipt_waits_for_its_next_attempt() -> None:
    keep_receipts(POISON)
    drain()
    assert Receipt.objects.filter(due_at__gt=Now()).count() == 1
    drain()
    assert Receipt.objects.get().attempts == 1


def queries_for(number: int) -> int:
    for index in range(number):
        message = MessageFactory(state="unknown")
        call(payload("bounce_HardBounce", message, ID=1_000 * number + index))
        call(payload("open", message, MessageID=str(message.pk)))
    with CaptureQueriesContext(connection) as queries:
        drain()
    return len(queries)


def test_number_of_queries_does_not_depend_on_the_number_of_receipts() -> None:
    assert queries_for(1) == queries_for(50)
    assert set(Receipt.objects.values_list("state", flat=True)) == {"applied"}

"""Draining receipts: batches, bad ones among them, crashes, replay."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import wraps
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from delivery.models import Bounce, Message, Visit
from suppression.models import Suppression
from tests.factories import MessageFactory
from tests.webhooks.postmark import call, payload
from webhooks import answers, services
from webhooks.models import Receipt
from webhooks.receipts import NewReceipt, keep_receipts
from webhooks.services import MOST_BYTES, drain, drain_receipts, replay_receipts
from webhooks.tasks import drain_feedback

pytestmark = pytest.mark.django_db

PERSON = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
POISON = [NewReceipt("postmark", "poison", b"[]")]


def drain_all() -> None:
    while drain_receipts(budget=10):
        pass


def make_due() -> None:
    """Let the time pass that a failed receipt waits, or a dead worker's lease lasts."""
    hour = timedelta(hours=1)
    Receipt.objects.update(due_at=F("due_at") - hour, claimed_until=F("claimed_until") - hour)


def claim() -> list[int]:
    """What a worker does before it dies."""
    fresh, tried = (services._CLAIM.format(which=which) for which in "=>")
    taken = list(Receipt.objects.raw(fresh, [100, "a dead worker", 120, MOST_BYTES]))
    taken = taken or list(Receipt.objects.raw(tried, [1, "a dead worker", 120, MOST_BYTES]))
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
    drain_all()
    assert Message.objects.filter(bounced_at__isnull=False).count() == 3
    assert Suppression.objects.count() == 3
    poison = Receipt.objects.get(provider_event_id="poison")
    assert (poison.state, poison.attempts, poison.lease_owner) == ("pending", 1, "")
    assert "Malformed" in poison.error
    assert not Receipt.objects.due().exists()


def test_receipt_is_dead_after_five_attempts_and_can_be_replayed() -> None:
    keep_receipts(POISON)
    for _ in range(7):
        drain_all()
        make_due()
    receipt = Receipt.objects.get()
    assert (receipt.state, receipt.attempts) == ("dead", 5)
    assert receipt.error.startswith("Traceback")
    Receipt.objects.update(body=b'{"RecordType": "Delivery"}')
    assert replay_receipts([receipt.pk]) == 1
    assert replay_receipts([receipt.pk]) == 0
    drain_all()
    receipt.refresh_from_db()
    assert (receipt.state, receipt.error) == ("applied", "")


def test_receipt_of_a_provider_that_is_gone_is_kept() -> None:
    Receipt.objects.create(provider="gone", provider_event_id="1", body=b"{}")
    drain_all()
    assert "KeyError" in Receipt.objects.get().error


def test_receipts_of_a_dead_worker_are_taken_over_one_at_a_time() -> None:
    for number in range(3):
        call(payload("bounce_SoftBounce", MessageFactory(state="sent"), ID=number))
    assert len(claim()) == 3
    drain_all()
    assert set(Receipt.objects.values_list("state", flat=True)) == {"pending"}
    make_due()
    assert len(claim()) == 1
    drain_all()
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
    drain_all()
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
    drain_all()
    assert Receipt.objects.filter(due_at__gt=Now()).count() == 1
    drain_all()
    assert Receipt.objects.get().attempts == 1


def queries_for(number: int, *, first_id: int) -> int:
    for index in range(number):
        message = MessageFactory(state="unknown")
        call(payload("bounce_HardBounce", message, ID=first_id + index))
        call(payload("open", message, MessageID=str(message.pk)))
    with CaptureQueriesContext(connection) as queries:
        drain_all()
    return len(queries)


def test_number_of_queries_does_not_depend_on_the_number_of_receipts() -> None:
    queries_for(1, first_id=1)  # this process has not looked anything up before
    assert queries_for(1, first_id=2) == queries_for(50, first_id=3)
    assert set(Receipt.objects.values_list("state", flat=True)) == {"applied"}


def bodies(number: int, size: int) -> list[NewReceipt]:
    filling = b" " * size
    return [NewReceipt("postmark", f"event {n}", b"{}" + filling) for n in range(number)]


def test_batch_is_bounded_by_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the number alone: five hundred mails of the bounce mailbox would be 130 MB."""
    monkeypatch.setattr(services, "MOST_BYTES", 10_000)
    keep_receipts(bodies(7, 4_000))
    taken: list[list[int]] = []
    as_usual = services._apply

    def count(receipts: Sequence[Receipt], owner: str) -> None:
        taken.append([receipt.pk for receipt in receipts])
        as_usual(receipts, owner)

    monkeypatch.setattr(services, "_apply", count)
    drain_all()
    assert [len(batch) for batch in taken] == [3, 3, 1]
    # The oldest first, and what is left out is nobody's meanwhile.
    assert taken == [sorted(batch) for batch in taken]
    in_turn = [pk for batch in taken for pk in batch]
    assert in_turn == sorted(in_turn)
    assert set(Receipt.objects.values_list("state", "lease_owner")) == {("applied", "")}


def test_receipt_that_is_larger_than_a_batch_is_taken_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(services, "MOST_BYTES", 1_000)
    keep_receipts(bodies(2, 4_000))
    drain_all()
    assert Receipt.objects.filter(state="applied").count() == 2


PARTS = ["apply_answers", "judge_visits", "_drain_once", "_bury_killers"]


def work_for_each_part() -> tuple[Message, Message, Message]:
    answered = MessageFactory(state="failed", reason="refused")
    Bounce.objects.create(message=answered, bounce_class="hard", source="smtp")
    opened = MessageFactory(
        state="sent", handed_over_at=Now() - timedelta(hours=1), contact__may_track=True
    )
    Visit.objects.create(
        message=opened, fingerprint=b"1", client=b"1", user_agent=PERSON, due_at=Now()
    )
    told = MessageFactory(state="sent")
    call(payload("delivery", told))
    return answered, opened, told


@pytest.mark.audited(except_={"I10"}, why="a part is made to fail")
@pytest.mark.parametrize("part", PARTS)
def test_part_that_fails_keeps_no_other_from_being_done(
    monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    _, opened, told = work_for_each_part()

    def fails() -> bool:
        raise ValueError("as it may be")

    with monkeypatch.context() as broken:
        broken.setattr(services, part, fails)
        with pytest.raises(ExceptionGroup):
            drain(budget=5)
    opened.refresh_from_db()
    told.refresh_from_db()
    done = {
        "apply_answers": Suppression.objects.exists(),
        "judge_visits": opened.opened_at is not None,
        "_drain_once": told.delivered_at is not None,
    }
    assert done == {name: name != part for name in done}


def test_flood_of_receipts_leaves_no_answer_and_no_visit_lying(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All take turns: however short the time, and more than once where there is more of it."""
    monkeypatch.setattr(services, "BATCH", 1)
    monkeypatch.setattr(answers, "BATCH", 2)
    _, opened, _ = work_for_each_part()
    for _ in range(4):
        message = MessageFactory(state="failed", reason="refused")
        Bounce.objects.create(message=message, bounce_class="hard", source="smtp")
    keep_receipts(bodies(30, 10))
    assert drain(budget=0.0)
    assert Bounce.objects.filter(is_applied=True).count() == 2
    opened.refresh_from_db()
    assert opened.opened_at is not None
    turns: list[str] = []
    for name in ("apply_answers", "_drain_once"):
        part = getattr(services, name)
        monkeypatch.setattr(services, name, _noted(part, turns))
    assert not drain(budget=60)
    assert turns[:5] == ["apply_answers", "_drain_once"] * 2 + ["_drain_once"]
    assert not Bounce.objects.filter(is_applied=False).exists()


def _noted(part: Callable[[], bool], turns: list[str]) -> Callable[[], bool]:
    @wraps(part)
    def noted() -> bool:
        turns.append(part.__name__)
        return part()

    return noted

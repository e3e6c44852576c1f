"""What a lane is asked every few seconds, and what its worker claims, costs what is due: not what
was ever done. Tables only grow."""

from collections.abc import Callable, Iterator

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from campaigns.models import Enrollment
from campaigns.timers import wake_batch
from common.rows import IN_ORDER
from delivery import transitions
from delivery.models import Bounce, Visit
from emailauto import sweep
from events.inbox import claim_events
from monitoring.services import REPAIRS, SWEEP, idle_seconds
from tests.delivery.plans import copy_rows, scanned
from tests.factories import CampaignFactory, ContactFactory, EventFactory, MessageFactory
from tests.webhooks.outgoing.rows import make_delivery, make_endpoint
from webhooks.answers import apply_answers
from webhooks.models import OutgoingDelivery, Receipt
from webhooks.outgoing.sending import drain_deliveries
from webhooks.outgoing.transitions import claim
from webhooks.services import drain_receipts
from webhooks.visits import judge_visits

pytestmark = [pytest.mark.django_db, pytest.mark.unaudited]

MANY = 5_000
TABLES = {
    "events_event",
    "campaigns_enrollment",
    "delivery_message",
    "delivery_bounce",
    "delivery_visit",
    "webhooks_receipt",
    "webhooks_outgoingdelivery",
}

CLAIMS: dict[str, Callable[[], object]] = {
    "events": lambda: claim_events(owner="o", limit=9, retried=False),
    "events retried": lambda: claim_events(owner="o", limit=1, retried=True),
    "timers": lambda: wake_batch(limit=9),
    "messages": lambda: transitions.claim(
        "marketing", owner="o", lease_seconds=9, limit=9, crashed=False
    ),
    "messages crashed": lambda: transitions.claim(
        "transactional", owner="o", lease_seconds=9, limit=9, crashed=True
    ),
    "messages orphaned": transitions.recover_claimed,
    "receipts": lambda: drain_receipts(budget=60),
    "answers": apply_answers,
    "visits": judge_visits,
    "outgoing": lambda: drain_deliveries(budget=60),
    "outgoing of an endpoint": lambda: claim({OutgoingDelivery.objects.first().endpoint_id: 5}),
}


@pytest.fixture
def _years_of_work_done(db: None) -> None:
    """Many rows in each table, none of which is due."""
    EventFactory(state="processed", attempts=1)
    campaign = CampaignFactory()
    Enrollment.objects.create(
        campaign=campaign,
        contact=ContactFactory(),
        entry_key="once",
        event_at="2026-01-01T00:00Z",
        revision=campaign.published,
        state="done",
    )
    message = MessageFactory(state="sent")
    Bounce.objects.create(message=message, bounce_class="soft", source="smtp", is_applied=True)
    Visit.objects.create(message=message, actor="person", client=b"", due_at="2026-01-01T00:00Z")
    Receipt.objects.create(
        provider="ses", provider_event_id="1", body=b"{}" * 500, state="applied", attempts=1
    )
    make_delivery(make_endpoint(), state="delivered")
    copy_rows("events_event", MANY, event_id="event_id || g")
    copy_rows("campaigns_enrollment", MANY, id="gen_random_uuid()", entry_key="entry_key || g")
    copy_rows("delivery_message", MANY, id="gen_random_uuid()", dedupe_key="dedupe_key || '-' || g")
    copy_rows("delivery_bounce", MANY, bounce_class="'soft' || g")
    copy_rows("delivery_visit", MANY, fingerprint="int8send(g)")
    copy_rows("webhooks_receipt", MANY, provider_event_id="provider_event_id || '-' || g")
    copy_rows("webhooks_outgoingdelivery", MANY, event_id="event_id || g")


def statements_of(function: Callable[[], object]) -> Iterator[str]:
    with CaptureQueriesContext(connection) as captured:
        function()
    for query in captured:
        if any(table in query["sql"] for table in TABLES):
            # What a claim sends ahead is no part of the question.
            yield query["sql"].rpartition(IN_ORDER)[2]


@pytest.mark.usefixtures("_years_of_work_done")
def test_no_question_and_no_claim_reads_what_is_done() -> None:
    asked = {f"{lane} {has_work.__name__}": has_work for lane, has_work in sweep._DUE}
    for name, function in {**asked, **CLAIMS}.items():
        statements = list(statements_of(function))
        assert statements, name
        for statement in statements:
            assert not scanned(statement) & TABLES, f"{name}: {statement}"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("position", range(len(sweep._DUE)))
def test_question_that_fails_keeps_no_lane_from_its_bell(
    monkeypatch: pytest.MonkeyPatch, position: int
) -> None:
    def takes_too_long() -> bool:
        raise OperationalError("canceling statement due to statement timeout")

    questions = list(sweep._DUE)
    lane = questions[position][0]
    questions[position] = (lane, takes_too_long)
    monkeypatch.setattr(sweep, "_DUE", tuple(questions))
    rung: list[str] = []
    monkeypatch.setattr(sweep, "ring", lambda *lanes: rung.extend(lanes))
    MessageFactory(stream="marketing")
    MessageFactory()
    with pytest.raises(ExceptionGroup):
        sweep.sweep()
    # What is not known to have no work is rung as well, each once.
    assert sorted(rung) == sorted({lane, "marketing", "transactional"})
    assert idle_seconds(SWEEP) is not None
    assert idle_seconds(REPAIRS) is None


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "fields", [{}, {"attempts": 2}, {"state": "parked"}], ids=["fresh", "tried", "parked"]
)
def test_receipt_that_is_due_rings_its_lane(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, object]
) -> None:
    monkeypatch.setattr(sweep, "ring", lambda *lanes: None)
    assert sweep.sweep() == []
    Receipt.objects.create(provider="ses", provider_event_id="1", body=b"{}", **fields)
    assert sweep.sweep() == ["feedback"]

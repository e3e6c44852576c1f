"""What a claim reads does not grow with what waits, whether or not the planner has counted it."""

from typing import Any

import pytest
from django.db import connection

from common.rows import IN_ORDER
from events.inbox import CLAIM_FRESH, CLAIM_RETRIED, claim_events
from events.models import Event
from tests.delivery.plans import most_read
from tests.factories import EventFactory

pytestmark = pytest.mark.django_db

PARAMETERS = {"owner": "me", "lease": 60, "limit": 20}


def flood(count: int) -> None:
    """So many events that nobody has counted yet."""
    EventFactory()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO events_event (source, event_id, type, user_id, occurred_at, payload,"
            " metadata, body_hash, state, reason, outcome, attempts, lease_owner, error, note)"
            " SELECT 'api', n::text, 'A', n::text, now(), '{}', '{}', '', 'pending', '', '[]', 0,"
            " '', '', '' FROM generate_series(1, %s) AS n",
            [count],
        )


@pytest.mark.parametrize("is_counted_before", [False, True])
@pytest.mark.parametrize("statement", [CLAIM_FRESH, CLAIM_RETRIED])
def test_claim_reads_what_it_takes_although_nothing_is_analyzed(
    statement: str, is_counted_before: bool
) -> None:
    if is_counted_before:
        # The planner knows of an empty table, and takes a look at every row for nothing.
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE events_event")
    flood(50_000)
    with connection.cursor() as cursor:
        cursor.execute(IN_ORDER)
    assert most_read(statement, PARAMETERS) <= 3 * PARAMETERS["limit"]  # type: ignore[operator]


def test_claims_take_the_fresh_in_order_and_the_tried_apart() -> None:
    first, tried, second = EventFactory.create_batch(3)
    Event.objects.filter(pk=tried.pk).update(attempts=1)
    took: Any = [event.pk for event in claim_events(owner="me", limit=10, retried=False)]
    assert took == [first.pk, second.pk]
    assert [e.pk for e in claim_events(owner="me", limit=10, retried=True)] == [tried.pk]
    assert claim_events(owner="me", limit=10, retried=False) == []

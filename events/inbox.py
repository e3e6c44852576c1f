"""Claiming events for the engine and settling them: the inbox's named transitions.

pending → (leased) → processed | ignored | pending again, later | dead
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec
from django.conf import settings
from django.db import connection
from django.db.models import Case, F, Value, When
from django.db.models.functions import Now

from common.rows import claim_rows
from events.models import Event
from events.states import EventState, IgnoredReason

MAX_ATTEMPTS = 5

_CLAIM = f"""
    UPDATE events_event
    SET lease_owner = %(owner)s, attempts = attempts + 1,
        claimed_until = statement_timestamp() + %(lease)s * interval '1 second'
    WHERE id = ANY (ARRAY(
        SELECT id FROM events_event
        WHERE state = 'pending' AND due_at <= statement_timestamp()
              AND (claimed_until IS NULL OR claimed_until < statement_timestamp())
              AND {{tried}} AND attempts < {MAX_ATTEMPTS}
        ORDER BY due_at, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
    RETURNING *
"""  # noqa: S608 - a constant of this module
# The condition stands in the text, or the index of the few that were tried could not serve.
CLAIM_FRESH = _CLAIM.format(tried="attempts = 0")
CLAIM_RETRIED = _CLAIM.format(tried="attempts > 0")

_SETTLE = """
    UPDATE events_event AS e
    SET state = s.state, reason = s.reason, outcome = s.outcome, contact_id = s.contact_id,
        processed_at = statement_timestamp(), claimed_until = NULL, lease_owner = '', error = ''
    FROM jsonb_to_recordset(%s::jsonb)
         AS s (id bigint, state text, reason text, outcome jsonb, contact_id bigint)
    WHERE e.id = s.id AND e.state = 'pending' AND e.lease_owner = %s
"""


class LeaseLost(Exception):
    """Another worker took over part of the batch; nothing of it may be committed here."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What the engine made of an event. No reason = it started or continued something.

    `outcome` has an entry per listening campaign, `{"campaign", "result"}`, and where there are
    many that did not match, one for the rest of them, `{"more", "result"}`.
    """

    event_id: int
    contact_id: int | None = None
    reason: IgnoredReason | None = None
    outcome: list[dict[str, Any]] = field(default_factory=list)


def claim_events(*, owner: str, limit: int, retried: bool) -> list[Event]:
    """Lease up to `limit` due events, oldest first; `retried` ones have failed or been orphaned
    before and are meant to be taken one at a time."""
    parameters = {"owner": owner, "lease": settings.LEASE_SECONDS, "limit": limit}
    events = claim_rows(Event, CLAIM_RETRIED if retried else CLAIM_FRESH, parameters)
    return sorted(events, key=lambda event: event.pk)


def settle_events(settlements: Sequence[Settlement], *, owner: str) -> None:
    """Make the events final; raises `LeaseLost` when one of them is no longer ours."""
    # One document: in an array of texts each quote of their JSON would be escaped by Python.
    rows = [
        {
            "id": s.event_id,
            "state": EventState.IGNORED if s.reason else EventState.PROCESSED,
            "reason": s.reason or "",
            "outcome": s.outcome,
            "contact_id": s.contact_id,
        }
        for s in settlements
    ]
    with connection.cursor() as cursor:
        cursor.execute(_SETTLE, [msgspec.json.encode(rows).decode(), owner])
        if cursor.rowcount != len(settlements):
            raise LeaseLost(f"{len(settlements) - cursor.rowcount} of {len(settlements)} events")


def release_events(ids: Sequence[int], *, owner: str, tried: bool) -> None:
    """Give a batch back at once. `tried` ones come back one by one; the others count as never
    claimed, because what stopped them was not one of them."""
    Event.objects.filter(pk__in=ids, lease_owner=owner, state=EventState.PENDING).update(
        claimed_until=None, lease_owner="", attempts=F("attempts") - (0 if tried else 1)
    )


def fail_event(event: Event, error: str, *, owner: str) -> None:
    """Back to pending with a growing pause, or dead after `MAX_ATTEMPTS`, with the traceback."""
    Event.objects.filter(pk=event.pk, lease_owner=owner, state=EventState.PENDING).update(
        state=Case(
            When(attempts__gte=MAX_ATTEMPTS, then=Value(EventState.DEAD)), default=F("state")
        ),
        due_at=Now() + timedelta(seconds=2 ** min(event.attempts, 8)),
        claimed_until=None,
        lease_owner="",
        error=error,
    )


def bury_killers() -> int:
    """pending → dead, for events whose last attempt ended with its worker; returns how many.

    An exception is counted by `fail_event`; a worker that dies cannot count anything.
    """
    return (
        Event.objects.due()
        .filter(attempts__gte=MAX_ATTEMPTS)
        .update(
            state=EventState.DEAD,
            claimed_until=None,
            lease_owner="",
            error="Every worker that took this event died or hung before it was done.",
        )
    )

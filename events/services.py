"""Keeping events: the one function every producer's path ends in."""

from collections.abc import Sequence
from enum import StrEnum

import msgspec
from django.db import connection
from django.db.models.functions import Now

from common.bell import ring
from events.models import ApiKey, Event
from events.states import EventState
from events.wire import EventIn


class Recorded(StrEnum):
    """What became of one posted event."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    """The id is known with another body."""


_INSERT = """
    INSERT INTO events_event
        (source, event_id, type, user_id, occurred_at, payload, metadata, body_hash,
         state, reason, outcome, attempts, lease_owner, error)
    SELECT %s, e.event_id, e.type, e.user_id, e.occurred_at, e.payload::jsonb, e.metadata::jsonb,
           e.body_hash, 'pending', '', '[]'::jsonb, 0, '', ''
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::text[], %s::text[],
                %s::bytea[])
         AS e (event_id, type, user_id, occurred_at, payload, metadata, body_hash)
    ON CONFLICT (source, event_id) DO NOTHING
    RETURNING event_id
"""


def record_events(events: Sequence[EventIn], *, source: str) -> list[Recorded]:
    """Store the events and wake the engine; the answer has one entry per event, in order.

    Idempotent per (source, event_id): the first body wins, the same body again is a
    `DUPLICATE`, another one a `CONFLICT`. When this returns the new rows are committed (unless
    the caller has opened a transaction, and then they share its fate). At most two statements.
    """
    first: dict[str, EventIn] = {}
    for event in events:
        first.setdefault(event.event_id, event)
    inserted = _insert(first, source)
    stored = _stored_hashes(first.keys() - inserted, source)
    if inserted:
        ring("events")
    return [_outcome(event, first, inserted, stored) for event in events]


def _insert(first: dict[str, EventIn], source: str) -> set[str]:
    # In one order everywhere: two batches with the same ids in different orders would each wait
    # for the other's unique-index entry.
    rows = [first[event_id] for event_id in sorted(first)]
    with connection.cursor() as cursor:
        cursor.execute(
            _INSERT,
            [
                source,
                [row.event_id for row in rows],
                [row.type for row in rows],
                [row.user_id for row in rows],
                [row.occurred_at for row in rows],
                [msgspec.json.encode(row.payload).decode() for row in rows],
                [msgspec.json.encode(row.metadata).decode() for row in rows],
                [row.body_hash for row in rows],
            ],
        )
        return {event_id for (event_id,) in cursor.fetchall()}


def _stored_hashes(event_ids: set[str], source: str) -> dict[str, bytes]:
    if not event_ids:
        return {}
    known = Event.objects.filter(source=source, event_id__in=event_ids)
    return {
        event_id: bytes(digest) for event_id, digest in known.values_list("event_id", "body_hash")
    }


def _outcome(
    event: EventIn, first: dict[str, EventIn], inserted: set[str], stored: dict[str, bytes]
) -> Recorded:
    if event.event_id in inserted and first[event.event_id] is event:
        return Recorded.ACCEPTED
    known = stored.get(event.event_id, first[event.event_id].body_hash)
    return Recorded.DUPLICATE if known == event.body_hash else Recorded.CONFLICT


def replay_dead(event_ids: Sequence[int]) -> int:
    """Give dead events another five attempts; returns how many were dead. Idempotent."""
    revived = Event.objects.filter(pk__in=event_ids, state=EventState.DEAD).update(
        state=EventState.PENDING, attempts=0, error="", claimed_until=None, lease_owner=""
    )
    if revived:
        ring("events")
    return revived


def revoke_keys(key_ids: Sequence[int]) -> int:
    """Refuse these API keys from now on; returns how many were still valid. Idempotent."""
    return ApiKey.objects.filter(pk__in=key_ids, revoked_at=None).update(revoked_at=Now())

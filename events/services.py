"""Keeping events: the functions every producer's path ends in."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import msgspec
from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Now

from common.bell import ring
from events import residency
from events.admission import refuse_region
from events.directory import Rules, rules
from events.erased import ANY_ERASED, erased_id
from events.models import ApiKey
from events.steps import Steps, run
from events.wire import EventIn, Item, Outcome, Recorded, Refusal

# One JSON document carries the rows: encoding it here and decoding it there costs a tenth of
# what quoting an array per column does. An id that was erased is known by its digest.
_INSERT = f"""
    INSERT INTO events_event
        (source, event_id, type, user_id, occurred_at, stated_at, received_at, payload,
         metadata, body_hash, state, reason, outcome, attempts, lease_owner, error, note)
    SELECT e.source, e.event_id, e.type, e.user_id, e.occurred_at, e.stated_at,
           e.received_at, e.payload, e.metadata, decode(e.body_hash, 'base64'), 'pending', '',
           '[]'::jsonb, 0, '', '', ''
    FROM jsonb_to_recordset(%s::jsonb)
         AS e (source text, event_id text, type text, user_id text, occurred_at timestamptz,
               stated_at timestamptz, received_at timestamptz, payload jsonb, metadata jsonb,
               body_hash text)
    WHERE NOT (EXISTS ({ANY_ERASED}) AND EXISTS (
        SELECT FROM events_event AS erased
        WHERE erased.source = e.source
              AND erased.event_id = {erased_id("e.source", "e.event_id", "%s")}))
    ON CONFLICT (source, event_id) DO NOTHING
    RETURNING source, event_id
"""  # noqa: S608 - names of columns

_STORED = """
    SELECT e.source, e.event_id, e.body_hash
    FROM unnest(%s::text[], %s::text[]) AS k (source, event_id)
    JOIN events_event e ON e.source = k.source AND e.event_id = k.event_id
"""

_REJECT = """
    INSERT INTO events_rejection
        (source, event_id, type, code, problems, body, times, state, note)
    SELECT r.source, r.event_id, r.type, r.code, r.problems, NULLIF(r.body, 'null'), r.times,
           'open', ''
    FROM jsonb_to_recordset(%s::jsonb)
         AS r (source text, event_id text, type text, code text, problems jsonb, body jsonb,
               times int)
    ON CONFLICT (source, event_id, code) DO UPDATE
    SET times = events_rejection.times + excluded.times, last_at = statement_timestamp(),
        problems = excluded.problems, type = excluded.type,
        body = coalesce(events_rejection.body, excluded.body),
        state = CASE events_rejection.state WHEN 'discarded' THEN 'discarded' ELSE 'open' END
"""

_SEEN = """
    INSERT INTO events_seentype (source, name)
    SELECT * FROM unnest(%s::text[], %s::text[])
    ON CONFLICT (source, name) DO NOTHING
"""

LANE = "events"

Key = tuple[str, str]


def submit(items: Sequence[Item]) -> list[Outcome]:
    """Keep the items and wake the engine; one answer per item, in order.

    When this returns, everything is committed (unless the caller has opened a transaction, and
    then it shares its fate).
    """
    with connection.cursor() as cursor:
        outcomes = run(keep(items, rules.get(None)), cursor)
    if Recorded.ACCEPTED in outcomes:
        # Inside a transaction of the caller's the bell would ring for rows nobody can see yet.
        transaction.on_commit(partial(ring, LANE))
    return outcomes


def keep(items: Sequence[Item], known: Rules) -> Steps[list[Outcome]]:
    """Store what was admitted, remember what was refused.

    Every statement may be repeated, and their number does not depend on that of the items: one
    when all is new, at most five.
    """
    items = yield from _of_permitted_people(items)
    events = [item for item in items if isinstance(item, EventIn)]
    recorded = iter((yield from _record(events)))
    outcomes: list[Outcome] = [
        next(recorded) if isinstance(item, EventIn) else item for item in items
    ]
    if len(events) < len(items):
        yield from _remember_refusals(item for item in items if isinstance(item, Refusal))
    yield from _remember_types(events, known)
    return outcomes


def _record(events: Sequence[EventIn]) -> Steps[list[Recorded]]:
    """Idempotent per (source, event_id): the first body wins, the same body again is a
    `DUPLICATE`, another one a `CONFLICT`."""
    if not events:
        return []
    first: dict[Key, EventIn] = {}
    for event in events:
        first.setdefault(event.key, event)
    # In one order everywhere: two batches with the same ids in different orders would each wait
    # for the other's unique-index entry.
    rows = [first[key] for key in sorted(first)]
    inserted = set((yield _INSERT, [msgspec.json.encode(rows).decode(), settings.ADDRESS_HASH_KEY]))
    stored = yield from _stored_hashes(first.keys() - inserted)
    return [_outcome(event, first, inserted, stored) for event in events]


def _stored_hashes(keys: set[Key]) -> Steps[dict[Key, bytes]]:
    if not keys:
        return {}
    rows = yield _STORED, [[source for source, _ in keys], [event_id for _, event_id in keys]]
    return {(source, event_id): bytes(digest) for source, event_id, digest in rows}


def _outcome(
    event: EventIn, first: dict[Key, EventIn], inserted: set[Key], stored: dict[Key, bytes]
) -> Recorded:
    if event.key in inserted and first[event.key] is event:
        return Recorded.ACCEPTED
    known = stored.get(event.key, first[event.key].body_hash)
    return Recorded.DUPLICATE if known == event.body_hash else Recorded.CONFLICT


def _of_permitted_people(items: Sequence[Item]) -> Steps[Sequence[Item]]:
    """Refuse what is known of people whose region may not be held here."""
    if not residency.is_restricted():
        return items
    user_ids = {item.user_id for item in items if item.user_id}
    regions: dict[str, str] = {}
    if user_ids and (query := residency.region_query()):
        regions = dict((yield query, [sorted(user_ids)]))
    return [item if _may_hold(item, regions) else refuse_region(item) for item in items]


def _may_hold(item: Item, regions: Mapping[str, str]) -> bool:
    if isinstance(item, Refusal) and item.body is None:  # nothing of it is kept
        return True
    return residency.may_hold(residency.named_region(item.metadata), regions.get(item.user_id, ""))


def _remember_refusals(refusals: Iterable[Refusal]) -> Steps[None]:
    """Keep the refused by id and reason. A shape that is wrong is the producer's to mend and is
    kept only when it was told "fine"."""
    kept: dict[tuple[str, str, str], Refusal] = {}
    times: dict[tuple[str, str, str], int] = {}
    for refusal in refusals:
        if refusal.code.is_kept or refusal.body is not None:
            key = (refusal.source, refusal.event_id, refusal.code.value)
            kept.setdefault(key, refusal)
            times[key] = times.get(key, 0) + 1
    if kept:
        rows = [{**msgspec.structs.asdict(kept[key]), "times": times[key]} for key in sorted(kept)]
        yield _REJECT, [msgspec.json.encode(rows).decode()]


def _remember_types(events: Sequence[EventIn], known: Rules) -> Steps[None]:
    """Write down names that nobody registered, the first time they are posted."""
    new = {
        (event.producer, event.type)
        for event in events
        if event.type not in known.schemas
        and event.type not in known.seen.get(event.producer, frozenset())
    }
    if new:
        pairs = sorted(new)
        yield _SEEN, [[source for source, _ in pairs], [name for _, name in pairs]]


def revoke_keys(key_ids: Sequence[int]) -> int:
    """Refuse these API keys from now on; returns how many were still valid. Idempotent."""
    return ApiKey.objects.filter(pk__in=key_ids, revoked_at=None).update(revoked_at=Now())

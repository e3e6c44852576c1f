"""What feedback leaves on messages and their people: moments, bounces, engagement. Timestamps only
ever move to an earlier moment, engagement to a later one, so that no order matters."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import connection

from delivery.statements import REJECTED
from delivery.states import MessageState
from webhooks.kinds import WATCHED
from webhooks.matching import MOMENTS, Match

logger = logging.getLogger(__name__)

_COLUMNS = tuple(MOMENTS.values())
_PROVEN = "proven_at"


@dataclass(frozen=True, slots=True)
class Marked:
    """What was not known before."""

    accepted: frozenset[UUID]
    """Messages that became `sent` by it."""
    rejected: frozenset[UUID]
    """Messages that failed by it."""
    moments: frozenset[tuple[UUID, str]]
    """(message, column)."""
    bounces: frozenset[tuple[UUID, str]]
    """(message, bounce class)."""


# In `dispatching` the worker that holds the message is about to record the same, and the state is
# left to it; what is stored here tells recovery the truth should that worker die.
_MARK = f"""
    WITH news AS (
        SELECT * FROM unnest(%s::uuid[], %s::text[] {", %s::timestamptz[]" * len(_COLUMNS)})
               AS n (id, esp_id, {", ".join(_COLUMNS)})
    ), locked AS (
        SELECT m.id, {", ".join(f"m.{column}" for column in _COLUMNS)}
        FROM delivery_message AS m JOIN news USING (id)
        ORDER BY m.id FOR NO KEY UPDATE OF m
    )
    UPDATE delivery_message AS m SET
        {", ".join(f"{column} = LEAST(m.{column}, n.{column})" for column in _COLUMNS)},
        esp_id = CASE WHEN m.esp_id = '' THEN n.esp_id ELSE m.esp_id END
    FROM news AS n JOIN locked AS l USING (id)
    WHERE m.id = n.id
    RETURNING m.id, {", ".join(f"l.{column} IS NULL" for column in _COLUMNS)}
"""  # noqa: S608 - column names from the table above

# From every other state proof wins: an `unknown` is cleared, and one that an operator queued
# again in the meantime is not sent twice (a worker that has claimed it loses the row). What the
# provider rejected has failed, unless something shows that it went out all the same; what only
# tells that the provider took it, or is still trying, says nothing against that.
#
# A mail of which something came back was sent when it was handed over; not when the provider's
# clock says, by which it may be years ago.
_SETTLE = f"""
    WITH proven AS (
        SELECT m.id, {REJECTED} AS is_rejected FROM delivery_message AS m WHERE m.id = ANY(%s)
    )
    UPDATE delivery_message AS m
    SET state = CASE WHEN is_rejected THEN 'failed' ELSE 'sent' END,
        reason = CASE WHEN is_rejected THEN 'refused' ELSE '' END, detail = '',
        sent_at = CASE WHEN is_rejected THEN NULL
                       ELSE coalesce(m.sent_at, m.handed_over_at, statement_timestamp()) END,
        lease_owner = '', lease_until = NULL
    FROM proven AS p
    WHERE m.id = p.id AND m.state <> 'dispatching'
          AND (m.state <> CASE WHEN is_rejected THEN 'failed' ELSE 'sent' END
               OR (m.sent_at IS NULL) <> is_rejected)
    RETURNING m.id, m.state
"""  # noqa: S608 - a constant of `delivery.statements`

# However often and in whatever order a message came back: once per class, with the first time and
# the last. New is what nobody has acted on.
_BOUNCE = """
    WITH news AS (
        SELECT * FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::timestamptz[],
                             %s::timestamptz[])
               AS n (message_id, bounce_class, detail, source, at, last_at)
    ), known AS (
        SELECT b.message_id, b.bounce_class FROM delivery_bounce AS b
        JOIN news USING (message_id, bounce_class) WHERE b.is_applied
    ), written AS (
        INSERT INTO delivery_bounce AS b
            (message_id, bounce_class, detail, source, at, last_at, is_applied)
        SELECT message_id, bounce_class, detail, source, at, nullif(last_at, at), true FROM news
        ON CONFLICT (message_id, bounce_class) DO UPDATE SET
            at = LEAST(b.at, excluded.at), is_applied = true,
            last_at = nullif(GREATEST(b.last_at, b.at, excluded.last_at, excluded.at),
                             LEAST(b.at, excluded.at))
        RETURNING b.message_id, b.bounce_class
    )
    SELECT message_id, bounce_class FROM written
    EXCEPT SELECT message_id, bounce_class FROM known
"""

_ENGAGE = """
    WITH news AS (
        SELECT * FROM unnest(%s::bigint[], %s::timestamptz[]) AS n (id, at)
    ), locked AS (
        SELECT c.id FROM contacts_contact AS c JOIN news USING (id)
        ORDER BY c.id FOR NO KEY UPDATE OF c
    )
    UPDATE contacts_contact AS c SET engaged_at = GREATEST(c.engaged_at, n.at)
    FROM news AS n JOIN locked USING (id)
    WHERE c.id = n.id AND n.at IS NOT NULL
"""


def mark(matches: Sequence[Match], *, touching: Iterable[int] = ()) -> Marked:
    """Write it all down; four statements at most. Must run inside a transaction.

    The contacts `touching` are those the caller goes on to change: all rows are locked here, in
    one order.
    """
    ends, moments = _mark_messages(matches)
    bounces = _note_bounces(matches)
    _engage(matches, touching)
    accepted, rejected = (
        frozenset(pk for pk, state in ends.items() if state == end)
        for end in (MessageState.SENT, MessageState.FAILED)
    )
    for message_id in rejected:
        # Somebody has to look at it: it is in the dead letters, and can be replayed from there.
        logger.warning("rejected by its provider", extra={"message_uuid": str(message_id)})
    return Marked(accepted, rejected, moments, bounces)


def _mark_messages(
    matches: Iterable[Match],
) -> tuple[dict[UUID, str], frozenset[tuple[UUID, str]]]:
    """Message → the state it has come to; and the moments that are new."""
    rows, esp_ids = _first_moments(matches)
    if not rows:
        return {}, frozenset()
    times = [[row.get(column) for row in rows.values()] for column in _COLUMNS]
    proven = [message_id for message_id, row in rows.items() if _PROVEN in row]
    with connection.cursor() as cursor:
        cursor.execute(_MARK, [list(rows), [esp_ids[pk] for pk in rows], *times])
        fresh = frozenset(
            (pk, column)
            for pk, *were_empty in cursor.fetchall()
            for column, was_empty in zip(_COLUMNS, were_empty, strict=True)
            if was_empty and column in rows[pk]
        )
        if not proven:
            return {}, fresh
        cursor.execute(_SETTLE, [proven])
        return dict(cursor.fetchall()), fresh


def _first_moments(
    matches: Iterable[Match],
) -> tuple[dict[UUID, dict[str, datetime]], dict[UUID, str]]:
    """Message → column → the earliest time told; and the provider's ids."""
    moments: dict[UUID, dict[str, datetime]] = {}
    esp_ids: dict[UUID, str] = {}
    for match in matches:
        columns = [*([_PROVEN] if match.is_proof else []), *filter(None, [match.moment])]
        if match.message is None or not columns:
            continue
        row = moments.setdefault(match.message.pk, {})
        for column in columns:
            row[column] = min(match.feedback.at, row.get(column, match.feedback.at))
        esp_ids[match.message.pk] = esp_ids.get(match.message.pk) or match.feedback.esp_id
    return moments, esp_ids


def _note_bounces(matches: Iterable[Match]) -> frozenset[tuple[UUID, str]]:
    first: dict[tuple[UUID, str], Match] = {}
    last: dict[tuple[UUID, str], datetime] = {}
    for match in sorted(matches, key=lambda match: match.feedback.at):
        if match.message is not None and match.is_returned:
            key = (match.message.pk, str(match.bounce_class))
            first.setdefault(key, match)
            last[key] = match.feedback.at
    if not first:
        return frozenset()
    rows = [
        (*key, m.feedback.detail[:500], m.feedback.source, m.feedback.at, last[key])
        for key, m in sorted(first.items())
    ]
    with connection.cursor() as cursor:
        cursor.execute(_BOUNCE, [list(column) for column in zip(*rows, strict=True)])
        return frozenset(cursor.fetchall())


def _engage(matches: Iterable[Match], touching: Iterable[int]) -> None:
    last: dict[int, datetime | None] = dict.fromkeys(touching)
    for match in matches:
        if match.is_forgotten:
            continue
        if match.message is not None and match.feedback.kind in WATCHED:
            contact = match.message.contact_id
            last[contact] = max(match.feedback.at, last.get(contact) or match.feedback.at)
    if last:
        with connection.cursor() as cursor:
            cursor.execute(_ENGAGE, [list(last), list(last.values())])

"""The moves of deliveries and endpoints, each one statement that counts its rows."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Now

from common.ids import lease_owner
from webhooks.models import OutgoingEndpoint
from webhooks.outgoing.verdicts import Verdict
from webhooks.states import OutgoingState

logger = logging.getLogger(__name__)

# As long as a delivery is tried, and a long weekend.
GIVEN_UP_AFTER = timedelta(days=5)

GONE = "It answered 410 Gone."
FAILED = f"Every attempt failed for {GIVEN_UP_AFTER.days} days."

_READY = """
    SELECT e.* FROM webhooks_outgoingendpoint AS e
    WHERE e.is_active AND (e.resume_at IS NULL OR e.resume_at <= statement_timestamp())
          AND EXISTS (
              SELECT 1 FROM webhooks_outgoingdelivery AS d
              WHERE d.endpoint_id = e.id AND d.state = 'pending'
                    AND d.due_at <= statement_timestamp()
                    AND (d.lease_until IS NULL OR d.lease_until < statement_timestamp()))
    ORDER BY e.id
"""

_CLAIM = """
    WITH mine AS MATERIALIZED (
        SELECT due.id
        FROM unnest(%s::bigint[], %s::int[]) AS room (endpoint_id, free)
        CROSS JOIN LATERAL (
            SELECT d.id FROM webhooks_outgoingdelivery AS d
            WHERE d.endpoint_id = room.endpoint_id AND d.state = 'pending'
                  AND d.due_at <= statement_timestamp()
                  AND (d.lease_until IS NULL OR d.lease_until < statement_timestamp())
            ORDER BY d.due_at, d.id LIMIT room.free FOR UPDATE SKIP LOCKED) AS due
    )
    UPDATE webhooks_outgoingdelivery AS d
    SET lease_owner = %s, lease_until = statement_timestamp() + %s * interval '1 second'
    FROM mine WHERE d.id = mine.id
    RETURNING d.id, d.endpoint_id, d.event_id, d.body, d.attempts, d.lease_owner,
              coalesce((SELECT c.do_not_share FROM contacts_contact AS c WHERE c.id = d.contact_id),
                       false)
"""

_SETTLE = """
    UPDATE webhooks_outgoingdelivery AS d
    SET state = r.state, attempts = d.attempts + 1, status = r.status, answer = r.answer,
        tried_at = statement_timestamp(),
        due_at = CASE WHEN r.state = 'pending'
                      THEN statement_timestamp() + r.delay * interval '1 second'
                      ELSE d.due_at END,
        settled_at = CASE WHEN r.state <> 'pending' THEN statement_timestamp() END,
        lease_owner = '', lease_until = NULL
    FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::int[], %s::text[], %s::float8[])
         AS r (id, lease_owner, state, status, answer, delay)
    WHERE d.id = r.id AND d.state = 'pending' AND d.lease_owner = r.lease_owner
"""

# From the third failure in a row on an endpoint is left alone for a while, which doubles up to ten
# minutes: what waits for it is not used up, and nobody waits for its timeouts all day.
_NOTE = """
    WITH r AS (
        SELECT n.id, n.has_delivered, n.failed,
               n.failed + CASE WHEN n.has_delivered THEN 0 ELSE e.failures END AS failures,
               n.pause
        FROM unnest(%s::bigint[], %s::bool[], %s::int[], %s::float8[])
             AS n (id, has_delivered, failed, pause)
        JOIN webhooks_outgoingendpoint AS e USING (id)
        ORDER BY id FOR NO KEY UPDATE OF e
    ), s AS (
        SELECT r.*, greatest(r.pause, CASE
                   WHEN r.failed > 0 AND r.failures >= 3
                   THEN least(5 * 2 ^ least(r.failures - 3, 10), 600) ELSE 0 END) AS seconds
        FROM r
    )
    UPDATE webhooks_outgoingendpoint AS e
    SET failures = s.failures,
        failing_since = CASE WHEN s.failed = 0 THEN NULL
                             WHEN s.has_delivered THEN statement_timestamp()
                             ELSE coalesce(e.failing_since, statement_timestamp()) END,
        delivered_at = CASE WHEN s.has_delivered THEN statement_timestamp()
                            ELSE e.delivered_at END,
        resume_at = CASE WHEN s.seconds > 0
                         THEN statement_timestamp() + s.seconds * interval '1 second'
                         ELSE e.resume_at END
    FROM s WHERE e.id = s.id
"""

_WITHHOLD = """
    UPDATE webhooks_outgoingdelivery AS d
    SET state = 'withheld', body = '', answer = '', settled_at = statement_timestamp(),
        lease_owner = '', lease_until = NULL
    FROM unnest(%s::bigint[], %s::text[]) AS r (id, lease_owner)
    WHERE d.id = r.id AND d.state = 'pending' AND d.lease_owner = r.lease_owner
"""

_RELEASE = """
    UPDATE webhooks_outgoingdelivery AS d SET lease_owner = '', lease_until = NULL
    FROM unnest(%s::bigint[], %s::text[]) AS r (id, lease_owner)
    WHERE d.id = r.id AND d.state = 'pending' AND d.lease_owner = r.lease_owner
"""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that is ours until its lease ends. `attempts` are those made before."""

    id: int
    endpoint_id: int
    event_id: str
    body: str
    attempts: int
    lease_owner: str
    do_not_share: bool


def ready_endpoints() -> list[OutgoingEndpoint]:
    """Active, not asking for time, and with something due."""
    return list(OutgoingEndpoint.objects.raw(_READY))


def claim(rooms: Mapping[int, int]) -> list[Claimed]:
    """Lease what is due, for each endpoint at most as many as there is room for."""
    if not rooms:
        return []
    parameters = [list(rooms), list(rooms.values()), lease_owner(), settings.LEASE_SECONDS]
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, parameters)
        return [Claimed(*row) for row in cursor.fetchall()]


def settle(results: Sequence[tuple[Claimed, Verdict]]) -> None:
    """Record what was answered, in the order of the answers, and what it says of the endpoints."""
    if not results:
        return
    rows = [(c.id, c.lease_owner, v.state.value, v.status, v.answer, v.delay) for c, v in results]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_SETTLE, [list(column) for column in zip(*rows, strict=True)])
        _warn_of_lost(len(rows) - cursor.rowcount)
        cursor.execute(_NOTE, [list(column) for column in zip(*_notes(results), strict=True)])
        _give_up(results)


def withhold(claimed: Iterable[Claimed]) -> None:
    """End, and empty, what was to be told about people who no longer want that."""
    _move(_WITHHOLD, list(claimed))


def release(claimed: Iterable[Claimed]) -> None:
    """Give back what is not going to be tried."""
    _move(_RELEASE, list(claimed))


def switch_off(ids: Iterable[int], why: str) -> int:
    """Disable active endpoints; returns how many. What is queued for them waits."""
    switched = OutgoingEndpoint.objects.filter(pk__in=list(ids), is_active=True).update(
        is_active=False, disabled_at=Now(), disabled_why=why
    )
    if switched:
        logger.warning("outgoing webhooks disabled", extra={"endpoints": switched, "why": why})
    return switched


def _notes(results: Sequence[tuple[Claimed, Verdict]]) -> list[tuple[int, bool, int, float]]:
    """For each endpoint: whether it took something, its failures since, the pause it asks for."""
    notes: dict[int, tuple[bool, int, float]] = {}
    for claimed, verdict in results:
        has_delivered, failed, pause = notes.get(claimed.endpoint_id, (False, 0, 0.0))
        if verdict.state is OutgoingState.DELIVERED:
            has_delivered, failed = True, 0
        else:
            failed += 1
        notes[claimed.endpoint_id] = (has_delivered, failed, max(pause, verdict.pause))
    return [(endpoint, *note) for endpoint, note in sorted(notes.items())]


def _give_up(results: Sequence[tuple[Claimed, Verdict]]) -> None:
    switch_off({claimed.endpoint_id for claimed, verdict in results if verdict.is_gone}, GONE)
    failed = {c.endpoint_id for c, v in results if v.state is not OutgoingState.DELIVERED}
    if failed:
        tired = OutgoingEndpoint.objects.filter(
            pk__in=failed, failing_since__lt=Now() - GIVEN_UP_AFTER
        )
        switch_off(tired.values_list("pk", flat=True), FAILED)


def _move(statement: str, claimed: Sequence[Claimed]) -> None:
    if claimed:
        parameters: list[Any] = [[c.id for c in claimed], [c.lease_owner for c in claimed]]
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            _warn_of_lost(len(claimed) - cursor.rowcount)


def _warn_of_lost(lost: int) -> None:
    if lost:
        # Another worker has taken them over, and tells the same under the same ids.
        logger.warning("outgoing leases lost", extra={"deliveries": lost})

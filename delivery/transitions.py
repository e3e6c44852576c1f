"""The moves a message's state can make, set-wise. Each is one statement that names the state it
leaves and, where one is held, the lease; a row that is no longer there is not moved.

    queued/retry → claimed → dispatching → sent | retry | failed | dead | unknown
    claimed → skipped | held | failed | queued (again, or later)
    dispatching → queued (provably not begun)
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection

from delivery.models import Message
from delivery.states import MessageState, Reason


@dataclass(frozen=True, slots=True)
class Departure:
    """A message about to be handed over: through which provider, to which address."""

    message_id: UUID
    provider_id: int
    route: str
    email: str
    email_normalized: str
    sending_domain: str
    mailboxes: str
    wire_hash: bytes
    is_tracked: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A claimed message that does not leave: the state it goes to and why."""

    message_id: UUID
    state: MessageState
    reason: Reason
    detail: str = ""
    delay: float = 0.0
    """Seconds after which it may be asked again."""
    mailboxes: str = ""
    """The mailbox provider of the person's address; empty: as it was."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The recorded outcome of a hand-over. `attempt` fences it: another attempt's row is left
    alone. `delay` in seconds, for RETRY; `verdict` goes into the log of attempts."""

    message_id: UUID
    attempt: int
    state: MessageState
    reason: Reason | str = ""
    detail: str = ""
    esp_id: str = ""
    delay: float = 0.0
    failed: bool = False
    verdict: str = ""
    replayable: float = 0.0
    """With RETRY: it may have been taken, and for so many seconds from the first hand-over on the
    same call is answered with the first one's result."""
    bounce: str = ""
    """The class of the receiving server's answer, where it was the receiver that answered."""
    request: str = ""
    """What was asked of the provider, for the log of attempts."""
    never_begun: bool = False
    """Nothing was handed over; what an earlier hand-over left in doubt stays so."""


_CLAIM = """
    UPDATE delivery_message AS m
    SET state = 'claimed', lease_owner = %(owner)s,
        lease_until = statement_timestamp() + %(lease)s * interval '1 second'
    WHERE id IN (
        SELECT id FROM delivery_message
        WHERE state IN ('queued', 'retry') AND stream = %(stream)s
              AND due_at <= statement_timestamp() AND (crashes > 0) = %(crashed)s
        ORDER BY due_at, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
    RETURNING m.*, coalesce(m.replay_until <= statement_timestamp(), false) AS is_too_late
"""

_REFUSE = """
    UPDATE delivery_message AS m
    SET state = r.state, reason = r.reason, detail = r.detail,
        mailboxes = coalesce(nullif(r.mailboxes, ''), m.mailboxes),
        lease_owner = '', lease_until = NULL,
        due_at = CASE WHEN r.delay > 0 THEN statement_timestamp() + r.delay * interval '1 second'
                      ELSE m.due_at END
    FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::float8[], %s::text[])
         AS r (id, state, reason, detail, delay, mailboxes)
    WHERE m.id = r.id AND m.state = 'claimed' AND m.lease_owner = %s
    RETURNING m.id
"""

_PUT_OFF = """
    UPDATE delivery_message AS m
    SET state = 'queued', due_at = statement_timestamp() + p.delay * interval '1 second',
        lease_owner = '', lease_until = NULL
    FROM unnest(%s::uuid[], %s::float8[]) AS p (id, delay)
    WHERE m.id = p.id AND m.state IN ('claimed', 'dispatching') AND m.lease_owner = %s
    RETURNING m.id
"""

_DISPATCH = """
    UPDATE delivery_message AS m
    SET state = 'dispatching', attempts = m.attempts + 1, handover_id = %s, reason = '',
        detail = '', provider_id = d.provider_id, route = d.route, email = d.email,
        email_normalized = d.email_normalized, wire_hash = d.wire_hash, is_tracked = d.is_tracked,
        sending_domain = d.sending_domain, mailboxes = d.mailboxes,
        handed_over_at = statement_timestamp(),
        lease_until = statement_timestamp() + %s * interval '1 second'
    FROM unnest(%s::uuid[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[],
                %s::text[], %s::bytea[], %s::bool[])
         AS d (id, provider_id, route, email, email_normalized, sending_domain, mailboxes,
               wire_hash, is_tracked)
    WHERE m.id = d.id AND m.state = 'claimed' AND m.lease_owner = %s
          AND m.lease_until > statement_timestamp()
    RETURNING m.id, m.attempts
"""

# What feedback has told already: the provider has the message, whatever the worker knows.
_PROVEN = (
    "(m.esp_id <> '' OR LEAST(m.delivered_at, m.opened_at, m.clicked_at, m.bounced_at,"
    " m.complained_at) IS NOT NULL)"
)

# Also from `unknown`: if recovery gave the message up while its worker was only slow, that
# worker's outcome is the proof that was missing. The attempt number is what makes it the same.
_SETTLE = f"""
    WITH outcome AS (
        SELECT * FROM unnest(%s::uuid[], %s::int[], %s::text[], %s::text[], %s::text[], %s::text[],
                             %s::float8[], %s::bool[], %s::text[], %s::float8[], %s::text[],
                             %s::text[], %s::bool[])
             AS s (id, attempt, state, reason, detail, esp_id, delay, failed, verdict, replayable,
                   bounce, request, never_begun)
    ), moved AS (
        UPDATE delivery_message AS m
        SET state = CASE WHEN {_PROVEN} THEN 'sent' ELSE s.state END,
            reason = CASE WHEN {_PROVEN} THEN '' ELSE s.reason END, detail = s.detail,
            esp_id = CASE WHEN s.esp_id = '' THEN m.esp_id ELSE s.esp_id END,
            failures = m.failures + s.failed::int,
            replay_until = CASE
                WHEN s.replayable > 0 THEN coalesce(
                    m.replay_until, m.handed_over_at + s.replayable * interval '1 second')
                WHEN s.never_begun THEN m.replay_until END,
            due_at = statement_timestamp() + s.delay * interval '1 second',
            sent_at = CASE WHEN s.state = 'sent' OR {_PROVEN}
                           THEN statement_timestamp() ELSE m.sent_at END,
            lease_owner = '', lease_until = NULL
        FROM outcome AS s
        WHERE m.id = s.id AND m.attempts = s.attempt AND m.state IN ('dispatching', 'unknown')
        RETURNING m.id
    ), logged AS (
        INSERT INTO delivery_attempt (message_id, number, provider_id, verdict, detail, request)
        SELECT s.id, s.attempt, m.provider_id, s.verdict, s.detail, s.request
        FROM outcome AS s JOIN delivery_message AS m ON m.id = s.id
        WHERE m.provider_id IS NOT NULL AND s.verdict <> ''
        ON CONFLICT DO NOTHING
    ), answered AS (
        INSERT INTO delivery_bounce (message_id, bounce_class, detail, source, is_applied)
        SELECT s.id, s.bounce, s.detail, 'smtp', false
        FROM outcome AS s JOIN moved USING (id) WHERE s.bounce <> ''
        ON CONFLICT DO NOTHING
    )
    SELECT id FROM moved
"""  # noqa: S608 - a constant of this module

MAX_CRASHES = 3
"""A message on which so many workers died, or batches failed, is given up."""

# In doubt it is not ours to call dead.
_BURIED = """
    SET state = CASE WHEN m.crashes + 1 < %s THEN 'queued'
                     WHEN m.replay_until IS NULL THEN 'dead' ELSE 'unknown' END,
        reason = CASE WHEN m.crashes + 1 < %s THEN m.reason
                      WHEN m.replay_until IS NULL THEN 'crashed' ELSE 'outcome_unknown' END,
        crashes = m.crashes + 1, lease_owner = '', lease_until = NULL
"""

_GIVE_BACK_FAILED = f"""
    UPDATE delivery_message AS m {_BURIED}
    WHERE m.id = ANY(%s) AND m.state IN ('claimed', 'dispatching') AND m.lease_owner = %s
    RETURNING m.id
"""

_RECOVER_CLAIMED = f"""
    UPDATE delivery_message AS m {_BURIED}
    WHERE m.state = 'claimed' AND m.lease_until < statement_timestamp()
    RETURNING m.state
"""

_RELEASE = f"""
    UPDATE delivery_message AS m
    SET state = CASE WHEN {_PROVEN} THEN 'sent' ELSE 'queued' END,
        sent_at = CASE WHEN {_PROVEN} THEN statement_timestamp() ELSE m.sent_at END,
        lease_owner = '', lease_until = NULL
    WHERE m.id = ANY(%s) AND m.state = ANY(%s) AND m.lease_owner = %s
    RETURNING m.id
"""  # noqa: S608 - a constant of this module


def claim(
    stream: str, *, owner: str, lease_seconds: int, limit: int, crashed: bool
) -> list[Message]:
    """due → claimed, oldest first, for messages that have (not) killed a worker before."""
    parameters = {
        "stream": stream,
        "owner": owner,
        "lease": lease_seconds,
        "limit": limit,
        "crashed": crashed,
    }
    return sorted(Message.objects.raw(_CLAIM, parameters), key=lambda m: (m.due_at, m.pk))


def recover_claimed() -> Counter[str]:
    """claimed with an expired lease → queued, or given up; the states they went to."""
    return Counter(state for (state,) in _run(_RECOVER_CLAIMED, (MAX_CRASHES, MAX_CRASHES)))


def put_off(delays: Mapping[UUID, float], *, owner: str) -> set[UUID]:
    """claimed or dispatching → queued, due after so many seconds, by the worker that holds them
    and has not begun them."""
    columns = (list(delays), list(delays.values()), owner)
    return {message_id for (message_id,) in _run(_PUT_OFF, columns)}


def refuse(refused: Sequence[Refused], *, owner: str) -> set[UUID]:
    """claimed → skipped, held, failed, unknown (a doubt that cannot be cleared), or queued for
    later; returns those that were still ours."""
    if not refused:
        return set()
    columns = (
        [r.message_id for r in refused],
        [r.state.value for r in refused],
        [r.reason.value for r in refused],
        [r.detail[:500] for r in refused],
        [r.delay for r in refused],
        [r.mailboxes for r in refused],
        owner,
    )
    return {message_id for (message_id,) in _run(_REFUSE, columns)}


def dispatch(
    departures: Sequence[Departure], *, owner: str, handover_id: UUID, lease_seconds: int
) -> dict[UUID, int]:
    """claimed → dispatching; the attempt number of each message that was still ours."""
    if not departures:
        return {}
    columns = (
        handover_id,
        lease_seconds,
        [d.message_id for d in departures],
        [d.provider_id for d in departures],
        [d.route for d in departures],
        [d.email for d in departures],
        [d.email_normalized for d in departures],
        [d.sending_domain for d in departures],
        [d.mailboxes for d in departures],
        [d.wire_hash for d in departures],
        [d.is_tracked for d in departures],
        owner,
    )
    return dict(_run(_DISPATCH, columns))


def settle(settled: Sequence[Settled]) -> set[UUID]:
    """dispatching (or unknown) → what came of it; returns those that were moved."""
    if not settled:
        return set()
    # In the order feedback locks them too.
    settled = sorted(settled, key=lambda s: s.message_id)
    columns = (
        [s.message_id for s in settled],
        [s.attempt for s in settled],
        [s.state.value for s in settled],
        [str(s.reason) for s in settled],
        [s.detail[:500] for s in settled],
        [s.esp_id[:200] for s in settled],
        [s.delay for s in settled],
        [s.failed for s in settled],
        [s.verdict for s in settled],
        [s.replayable for s in settled],
        [s.bounce for s in settled],
        [s.request for s in settled],
        [s.never_begun for s in settled],
    )
    return {message_id for (message_id,) in _run(_SETTLE, columns)}


def give_back_failed(messages: Iterable[UUID], *, owner: str) -> set[UUID]:
    """claimed or dispatching → queued, or dead in the end: making or promising the batch failed,
    and one of them may be why. They come again alone."""
    rows = _run(_GIVE_BACK_FAILED, (MAX_CRASHES, MAX_CRASHES, list(messages), owner))
    return {message_id for (message_id,) in rows}


def release(messages: Iterable[UUID], *states: MessageState, owner: str) -> set[UUID]:
    """claimed or dispatching → queued, by the worker that holds them and has not begun them."""
    rows = _run(_RELEASE, (list(messages), [state.value for state in states], owner))
    return {message_id for (message_id,) in rows}


def _run(statement: str, parameters: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        rows: list[Any] = cursor.fetchall()
    return rows

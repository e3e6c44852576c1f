"""The moves a message's state can make, set-wise. Each is one statement that names the state it
leaves and, where one is held, the lease; a row that is no longer there is not moved.

    queued/retry → claimed → dispatching → sent | retry | failed | dead | unknown
    claimed → skipped | held | failed | queued (again, or later)
    claimed → dead (its workers die) | unknown (the same in doubt, or a doubt that stays one)
    dispatching → queued (provably not begun)
    unknown → whatever its worker says after all

Whatever the move: a message that the provider turns out to have goes to sent, or to failed if it
was taken and not sent.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection

from common.addresses import address_hash
from common.postgres import array
from common.rows import claim_rows
from delivery import statements
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
    address: str = ""
    """The normal form of the address it was handed over to; the log keeps its hash, by which what
    comes back later is believed."""
    never_begun: bool = False
    """Nothing was handed over; what an earlier hand-over left in doubt stays so."""


_HELD_BY_A_WORKER = [MessageState.CLAIMED.value, MessageState.DISPATCHING.value]


def claim(
    stream: str, *, owner: str, lease_seconds: int, limit: int, crashed: bool
) -> list[Message]:
    """due → claimed, oldest first, for messages that have (not) killed a worker before; → sent
    for those that the provider turns out to have, which are not returned."""
    parameters = {
        "stream": stream,
        "owner": owner,
        "lease": lease_seconds,
        "limit": limit,
    }
    statement = statements.CLAIM_CRASHED if crashed else statements.CLAIM_FRESH
    rows = claim_rows(Message, statement, parameters)
    claimed = (message for message in rows if message.state == MessageState.CLAIMED)
    return sorted(claimed, key=lambda m: (m.due_at, m.pk))


def recover_claimed() -> Counter[str]:
    """claimed with an expired lease → queued, or given up; the states they went to."""
    return Counter(state for (state,) in _run(statements.RECOVER_CLAIMED, ()))


def put_off(delays: Mapping[UUID, float], *, owner: str) -> set[UUID]:
    """claimed or dispatching → queued, due after so many seconds, by the worker that holds them
    and has not begun them; those that the provider turns out to have → sent."""
    ids = list(delays)
    columns = (ids, _HELD_BY_A_WORKER, owner, ids, list(delays.values()))
    return {message_id for (message_id,) in _run(statements.PUT_OFF, columns)}


def refuse(refused: Sequence[Refused], *, owner: str) -> set[UUID]:
    """claimed → skipped, held, failed, unknown (a doubt that cannot be cleared), or queued for
    later; returns those that were still ours."""
    if not refused:
        return set()
    ids = [r.message_id for r in refused]
    columns = (
        *(ids, [MessageState.CLAIMED.value], owner),
        ids,
        [r.state.value for r in refused],
        [r.reason.value for r in refused],
        [r.detail[:500] for r in refused],
        [r.delay for r in refused],
        [r.mailboxes for r in refused],
    )
    return {message_id for (message_id,) in _run(statements.REFUSE, columns)}


def dispatch(
    departures: Sequence[Departure], *, owner: str, handover_id: UUID, lease_seconds: int
) -> dict[UUID, int]:
    """claimed → dispatching; the attempt number of each message that was still ours."""
    if not departures:
        return {}
    ids = [d.message_id for d in departures]
    columns = (
        *(ids, [MessageState.CLAIMED.value], owner),
        *(handover_id, lease_seconds),
        ids,
        [d.provider_id for d in departures],
        [d.route for d in departures],
        [d.email for d in departures],
        [d.email_normalized for d in departures],
        [d.sending_domain for d in departures],
        [d.mailboxes for d in departures],
        [d.wire_hash for d in departures],
        [d.is_tracked for d in departures],
    )
    return dict(_run(statements.DISPATCH, columns))


def settle(settled: Sequence[Settled]) -> set[UUID]:
    """dispatching (or unknown) → what came of it; returns those that were moved."""
    if not settled:
        return set()
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
        [address_hash(s.address) if s.address else None for s in settled],
    )
    return {message_id for (message_id,) in _run(statements.SETTLE, columns)}


def give_back_failed(messages: Iterable[UUID], *, owner: str) -> set[UUID]:
    """claimed or dispatching → queued, dead in the end, or sent where that is proven: making or
    promising the batch failed, and one of them may be why. They come again alone."""
    rows = _run(statements.GIVE_BACK_FAILED, (list(messages), _HELD_BY_A_WORKER, owner))
    return {message_id for (message_id,) in rows}


def release(messages: Iterable[UUID], *states: MessageState, owner: str) -> set[UUID]:
    """claimed or dispatching → queued, by the worker that holds them and has not begun them; those
    that the provider turns out to have → sent."""
    rows = _run(statements.RELEASE, (list(messages), [state.value for state in states], owner))
    return {message_id for (message_id,) in rows}


def _run(statement: str, parameters: Sequence[Any]) -> list[Any]:
    columns = [array(value) if isinstance(value, list) else value for value in parameters]
    with connection.cursor() as cursor:
        cursor.execute(statement, columns)
        rows: list[Any] = cursor.fetchall()
    return rows

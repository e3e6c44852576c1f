"""Writing down what came of hand-overs: verdict → state, and one line per attempt."""

import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from uuid import UUID

from django.conf import settings

from common.postgres import insist
from delivery import transitions
from delivery.handover import Handed
from delivery.journal import Journal
from delivery.states import MessageState, Reason
from delivery.transitions import Settled
from delivery.verdicts import Outcome, Verdict

logger = logging.getLogger(__name__)

MAX_BACKOFF = 3_600.0
MAX_OUTAGE_PAUSE = 60.0


def record(handed: Sequence[Handed], journal: Journal | None) -> None:
    """Settle each message and log the attempt, in one statement.

    When the database is away the outcomes are offered to it again and again: they are known here
    and, should this worker die too, in the journal.
    """
    if not handed:
        return
    # Fenced by attempt number and constraint: a second run finds its work done.
    insist(partial(_write, handed), meanwhile=journal.flush if journal else None)


def _write(handed: Sequence[Handed]) -> None:
    moved = transitions.settle([settled_by(h) for h in handed])
    if len(moved) < len(handed):
        logger.warning("outcomes without a row", extra={"messages": len(handed) - len(moved)})


def settled_by(handed: Handed) -> Settled:
    """The move the verdict of a hand-over means."""
    message = handed.departed.outbound.message
    return settled(message.pk, handed.departed.attempt, handed.verdict, failures=message.failures)


def settled(message_id: UUID, attempt: int, verdict: Verdict, *, failures: int) -> Settled:
    """The move a verdict means, by the retry policy of the config file.

    `failures` is how many attempts have failed before, the spared ones not counted.
    """
    move = _move(message_id, attempt, verdict, failures)
    return replace(move, verdict=verdict.outcome.value)


def _move(message_id: UUID, attempt: int, verdict: Verdict, failures: int) -> Settled:
    match verdict.outcome:
        case Outcome.ACCEPTED:
            return Settled(message_id, attempt, MessageState.SENT, esp_id=verdict.esp_id)
        case Outcome.PERMANENT:
            state, reason = MessageState.FAILED, Reason.REFUSED
            return Settled(message_id, attempt, state, reason, verdict.detail, failed=True)
        case Outcome.UNKNOWN:
            state, reason = MessageState.UNKNOWN, Reason.OUTCOME_UNKNOWN
            return Settled(message_id, attempt, state, reason, verdict.detail)
        case Outcome.RETRY:
            return _retry(message_id, attempt, verdict, failures)


def _retry(message_id: UUID, attempt: int, verdict: Verdict, failures: int) -> Settled:
    failed = not verdict.spares_attempt
    if failed and failures + 1 >= settings.EMAILAUTO.provider.retry.max_attempts:
        state, reason = MessageState.DEAD, Reason.ATTEMPTS_EXHAUSTED
        return Settled(message_id, attempt, state, reason, verdict.detail, failed=True)
    return Settled(
        message_id,
        attempt,
        MessageState.RETRY,
        detail=verdict.detail,
        delay=verdict.retry_after or _pause(failures, attempt, failed=failed),
        failed=failed,
    )


def _pause(failures: int, attempt: int, *, failed: bool) -> float:
    # An outage is no fault of the message's: it comes back within a minute of its end.
    return backoff(failures + 1) if failed else min(backoff(attempt), MAX_OUTAGE_PAUSE)


def backoff(attempt: int) -> float:
    """Seconds to wait after this failed attempt: exponential, with half of it random, so that what
    failed together does not come back together."""
    ceiling: float = settings.EMAILAUTO.provider.retry.backoff_ms / 1000 * 2 ** min(attempt - 1, 20)
    return random.uniform(0.5, 1.0) * min(ceiling, MAX_BACKOFF)  # noqa: S311 - jitter, no secret

"""Writing down what came of hand-overs: verdict → state, and one line per attempt."""

import logging
import random
import time
from collections.abc import Sequence
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction

from common.postgres import insert_rows
from delivery import transitions
from delivery.handover import Handed
from delivery.models import Attempt
from delivery.states import MessageState, Reason
from delivery.transitions import Settled
from delivery.verdicts import Outcome, Verdict

logger = logging.getLogger(__name__)

MAX_BACKOFF = 3_600.0
MAX_OUTAGE_PAUSE = 60.0
_RECORD_TRIES = 5


def record(handed: Sequence[Handed]) -> None:
    """Settle each message and log the attempt, in one transaction.

    When the database is away the outcomes are offered to it a few times more: they are known
    here and, if this worker dies too, only in the journal.
    """
    if not handed:
        return
    for attempt in range(1, _RECORD_TRIES + 1):
        try:
            _write(handed)
        except (OperationalError, InterfaceError):
            # Whether the commit went through is not known; the statements are fenced by attempt
            # number and constraint, so that a second run finds its work done.
            connection.close()
            if attempt == _RECORD_TRIES:
                raise
            time.sleep(0.2 * 2**attempt)
        else:
            return


def _write(handed: Sequence[Handed]) -> None:
    with transaction.atomic():
        moved = transitions.settle([settled_by(h) for h in handed])
        insert_rows([_attempt(h) for h in handed], ignore_conflicts=True)
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


def _attempt(handed: Handed) -> Attempt:
    outbound = handed.departed.outbound
    return Attempt(
        message=outbound.message,
        number=handed.departed.attempt,
        provider=outbound.provider,
        verdict=handed.verdict.outcome.value,
        detail=handed.verdict.detail[:500],
    )

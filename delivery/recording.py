"""Writing down what came of hand-overs: verdict → state, and one line per attempt."""

import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from django.conf import settings

from common.bell import ring
from common.outages import insist
from delivery import transitions
from delivery.bounces import RETURNED
from delivery.journal import Journal
from delivery.models import Message
from delivery.providers import TRAITS
from delivery.states import MessageState, Reason
from delivery.transitions import Settled
from delivery.turns import Handed
from delivery.verdicts import Blame, Outcome, Verdict

logger = logging.getLogger(__name__)

MAX_BACKOFF = 3_600.0
MAX_OUTAGE_PAUSE = 60.0
STAND_IN_PAUSE = 5.0
"""For as long at most mail waits for the pause of a provider that others may stand in for: then
the gate looks who does, or how long it has to wait."""
# Of what a provider promises, so that a slow call is not caught by the end of it.
_MARGIN = 0.5


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
    settled = [settled_by(h) for h in handed]
    moved = transitions.settle(settled)
    if any(move.bounce for move in settled):
        ring("feedback")
    if len(moved) < len(handed):
        logger.warning("outcomes without a row", extra={"messages": len(handed) - len(moved)})


def settled_by(handed: Handed) -> Settled:
    """The move the verdict of a hand-over means."""
    outbound, verdict = handed.departed.outbound, handed.verdict
    move = settled(outbound.message, handed.departed.attempt, verdict)
    if outbound.provider.pool and verdict.spares_attempt and verdict.retry_after is not None:
        move = replace(move, delay=min(move.delay, STAND_IN_PAUSE))
    taken = verdict.outcome == Outcome.ACCEPTED
    return move if taken else replace(move, request=outbound.in_words)


def settled(message: Message, attempt: int, verdict: Verdict) -> Settled:
    """The move a verdict means, by the retry policy of the config file and what the message's
    provider promises. `message` as it was handed over; `attempt` the one the verdict is about."""
    move = _in_doubt(message, attempt, verdict) if _is_doubtful(message, verdict) else None
    move = move or _known(message, attempt, verdict)
    bounce = verdict.bounce if verdict.bounce in RETURNED else None
    return replace(
        move,
        verdict=verdict.outcome.value,
        bounce=bounce or "",
        address=message.email_normalized,
    )


def never_begun(message: Message, attempt: int) -> Settled:
    """The move of a message of whose hand-over is known that the provider took nothing."""
    in_doubt = message.replay_until is not None
    state = MessageState.RETRY if in_doubt else MessageState.QUEUED
    return Settled(message.pk, attempt, state, never_begun=True)


def _is_doubtful(message: Message, verdict: Verdict) -> bool:
    """Whether the provider may have the message, by this hand-over or by one before: that a
    repeated call was turned away says nothing about the first."""
    if verdict.outcome == Outcome.ACCEPTED:
        return False
    return verdict.outcome == Outcome.UNKNOWN or message.replay_until is not None


def _in_doubt(message: Message, attempt: int, verdict: Verdict) -> Settled:
    window = replay_seconds(message.route)
    tries_left = message.failures + 1 < settings.EMAILAUTO.provider.retry.max_attempts
    asks_again = verdict.outcome != Outcome.PERMANENT and (tries_left or verdict.spares_attempt)
    if window and asks_again:
        return Settled(
            message.pk,
            attempt,
            MessageState.RETRY,
            Reason.OUTCOME_UNKNOWN,
            verdict.detail,
            delay=verdict.retry_after or backoff(message.failures + 1),
            failed=not verdict.spares_attempt,
            replayable=window,
        )
    if tries_left and getattr(settings.EMAILAUTO.provider.on_unknown, message.stream) == "resend":
        # Whosever fault it is, this many times and no more.
        again = replace(verdict, outcome=Outcome.RETRY, blame=Blame.MESSAGE)
        return _retry(message, attempt, again)
    state, reason = MessageState.UNKNOWN, Reason.OUTCOME_UNKNOWN
    return Settled(message.pk, attempt, state, reason, verdict.detail)


def replay_seconds(route: str) -> float:
    """How long after the first hand-over a repeated call is safe through this backend, with a
    margin; 0 where it never is."""
    return next(
        (t.idempotent_seconds * _MARGIN for t in TRAITS.values() if t.backend == route), 0.0
    )


def _known(message: Message, attempt: int, verdict: Verdict) -> Settled:
    match verdict.outcome:
        case Outcome.ACCEPTED:
            return Settled(message.pk, attempt, MessageState.SENT, esp_id=verdict.esp_id)
        case Outcome.PERMANENT:
            state, reason = MessageState.FAILED, Reason.REFUSED
            return Settled(message.pk, attempt, state, reason, verdict.detail, failed=True)
        case _:
            return _retry(message, attempt, verdict)


def _retry(message: Message, attempt: int, verdict: Verdict) -> Settled:
    failed = not verdict.spares_attempt
    if failed and message.failures + 1 >= settings.EMAILAUTO.provider.retry.max_attempts:
        state, reason = MessageState.DEAD, Reason.ATTEMPTS_EXHAUSTED
        return Settled(message.pk, attempt, state, reason, verdict.detail, failed=True)
    return Settled(
        message.pk,
        attempt,
        MessageState.RETRY,
        Reason.SENDER_REFUSED if verdict.blame == Blame.SENDER else "",
        verdict.detail,
        delay=verdict.retry_after or _pause(message.failures, attempt, failed=failed),
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

"""What an answer means for the delivery, and for its endpoint."""

import random
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from common.clock import now
from webhooks.exchange import Answer
from webhooks.guard import Denied, Unreachable
from webhooks.states import OutgoingState

_MINUTE, _HOUR = 60, 3_600

# Seconds until the next attempt, as Standard Webhooks recommends: three days and a bit in all.
# After the tenth attempt the delivery is dead.
SCHEDULE = (
    *(5, 5 * _MINUTE, 30 * _MINUTE, 2 * _HOUR, 5 * _HOUR, 10 * _HOUR),
    *(14 * _HOUR, 20 * _HOUR, 24 * _HOUR),
)
# Neither all at once, nor another day for what is due today.
_JITTER = 0.1

# Who asks for time gets it, but does not stop us for longer.
LONGEST_PAUSE = _HOUR
_THROTTLING = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)

_EXCERPT = 500


@dataclass(frozen=True, slots=True)
class Verdict:
    """`delay` and `pause` in seconds: until the next attempt, and for all of the endpoint's."""

    state: OutgoingState
    status: int | None
    answer: str
    delay: float = 0.0
    pause: float = 0.0
    is_gone: bool = False


def judge(attempts: int, outcome: Answer | Denied | Unreachable) -> Verdict:
    """What becomes of a delivery after its `attempts`-th attempt, the first being 1."""
    if not isinstance(outcome, Answer):
        return _again(attempts, None, str(outcome), 0.0)
    if 200 <= outcome.status < 300:
        return Verdict(OutgoingState.DELIVERED, outcome.status, _excerpt(outcome.body))
    if outcome.status == HTTPStatus.GONE:
        excerpt = _excerpt(outcome.body)
        return Verdict(OutgoingState.DEAD, outcome.status, excerpt, is_gone=True)
    is_throttled = outcome.status in _THROTTLING
    pause = _retry_after(outcome.headers) if is_throttled else 0.0
    return _again(attempts, outcome.status, _excerpt(outcome.body), pause)


def _again(attempts: int, status: int | None, answer: str, pause: float) -> Verdict:
    if attempts > len(SCHEDULE):
        return Verdict(OutgoingState.DEAD, status, answer, pause=pause)
    usual = SCHEDULE[attempts - 1] * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311
    return Verdict(OutgoingState.PENDING, status, answer, delay=max(usual, pause), pause=pause)


def _retry_after(headers: Message) -> float:
    """Seconds the receiver asks for, between 0 and `LONGEST_PAUSE`; 0 for what is no such thing."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:9]), LONGEST_PAUSE))
    try:
        moment = parsedate_to_datetime(text)
        seconds = (moment - now()).total_seconds()
    except (ValueError, TypeError, OverflowError):  # no date, or one without a zone
        return 0.0
    return min(max(seconds, 0.0), LONGEST_PAUSE)


def _excerpt(body: bytes) -> str:
    return body[: 4 * _EXCERPT].decode("utf-8", "replace").replace("\x00", "")[:_EXCERPT]

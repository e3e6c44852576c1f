"""The doorbell: tells workers that a lane has work. Nothing depends on it being heard.

A ring is one Celery message `drain.<lane>` on the queue of that name. Rings coalesce: while one
waits in the queue, further ones are dropped. The drain answers the door (`answer`) *before* it
looks for work, so a row committed after that look rings again and is never left to the sweep.
"""

import logging
import time
from typing import Any

import redis
from celery import current_app

from common.valkey import redis_client

logger = logging.getLogger(__name__)

# A ring whose message was lost in the broker silences its lane for this long at the most.
_PENDING_MS = 2_000
# After a failure the bell is left alone for a moment, so that an intake without Redis does not
# pay a connection timeout per request.
_SULK_SECONDS = 1.0

# Brokers hold what is due later in the worker, and lose or double it if that takes long.
_LONGEST_COUNTDOWN = 60.0

_silent_until = 0.0


def ring(*lanes: str) -> None:
    """Wake the workers of these lanes. Call after the commit; never raises, never blocks long."""
    for lane in lanes:
        if not _rung(lane, _pending(lane), _PENDING_MS):
            return


def ring_later(lane: str, seconds: float) -> None:
    """Wake a worker of the lane when something falls due; as `ring`. What is further away than a
    minute is left to the sweep."""
    if seconds <= _LONGEST_COUNTDOWN:
        _rung(lane, f"{_pending(lane)}:later", max(1, int(seconds * 1000)), countdown=seconds)


def _rung(lane: str, key: str, silent_ms: int, **options: Any) -> bool:
    """Send the lane's message unless one is on its way; False when the bell is out of order."""
    global _silent_until
    if time.monotonic() < _silent_until:
        return False
    try:
        if redis_client().set(key, 1, nx=True, px=silent_ms):
            current_app.send_task(f"drain.{lane}", queue=lane, retry=False, expires=600, **options)
    except Exception as error:  # noqa: BLE001 - whatever the broker's client raises: the sweep rings
        _silent_until = time.monotonic() + _SULK_SECONDS
        logger.warning("bell unheard", extra={"lane": lane, "error": type(error).__name__})
        return False
    return True


def answer(lane: str) -> None:
    """Called by a drain before it looks for work: from here on a new ring is a new message."""
    try:
        redis_client().delete(_pending(lane))
    except redis.RedisError:
        logger.debug("bell not reset", extra={"lane": lane})


def _pending(lane: str) -> str:
    return f"bell:{lane}"

"""The doorbell: tells workers that a lane has work. Nothing depends on it being heard.

A ring is one Celery message `drain.<lane>` on the queue of that name. Rings coalesce: while one
waits in the queue, further ones are dropped. The drain answers the door (`answer`) *before* it
looks for work, so a row committed after that look rings again and is never left to the sweep.
"""

import logging
import time
from functools import cache

import redis
from celery import current_app
from django.conf import settings

logger = logging.getLogger(__name__)

# A ring whose message was lost in the broker silences its lane for this long at the most.
_PENDING_MS = 2_000
# After a failure the bell is left alone for a moment, so that an intake without Redis does not
# pay a connection timeout per request.
_SULK_SECONDS = 1.0

_silent_until = 0.0


@cache
def redis_client() -> redis.Redis:
    """The shared Redis client of this process; every call ends within about 0.2 s."""
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=0.2,
        socket_connect_timeout=0.2,
        health_check_interval=30,
    )


def ring(*lanes: str) -> None:
    """Wake the workers of these lanes. Call after the commit; never raises, never blocks long."""
    global _silent_until
    if time.monotonic() < _silent_until:
        return
    for lane in lanes:
        try:
            if redis_client().set(_pending(lane), 1, nx=True, px=_PENDING_MS):
                current_app.send_task(f"drain.{lane}", queue=lane, retry=False, expires=600)
        except Exception as error:  # noqa: BLE001 - whatever the broker's client raises: the sweep rings
            _silent_until = time.monotonic() + _SULK_SECONDS
            logger.warning("bell unheard", extra={"lane": lane, "error": type(error).__name__})
            return


def answer(lane: str) -> None:
    """Called by a drain before it looks for work: from here on a new ring is a new message."""
    try:
        redis_client().delete(_pending(lane))
    except redis.RedisError:
        logger.debug("bell not reset", extra={"lane": lane})


def _pending(lane: str) -> str:
    return f"bell:{lane}"

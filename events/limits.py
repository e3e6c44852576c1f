"""How much an API key may post: a token bucket of events per second, shared by all servers.

Each process takes a tenth of a second's worth at a time, so that Redis is asked a few times a
second and not per request.
"""

import time
from dataclasses import dataclass

from redis.exceptions import RedisError

from common.api import ApiError
from common.buckets import lease
from events.directory import Producer

_LEASE_PART = 10
_LEASE_SECONDS = 1.0
# A whole batch has to fit, however small the limit.
_SMALLEST_BURST = 1_000
# After a failure Redis is left alone for a moment: each try would cost its time-out.
_SULK_SECONDS = 1.0

_silent_until = 0.0


@dataclass(slots=True)
class _Allowance:
    tokens: int = 0
    until: float = 0.0


_allowances: dict[str, _Allowance] = {}


def spend(producer: Producer, count: int) -> bool:
    """Whether the events are covered by what this process still has; asks nobody."""
    if not producer.rate_limit:
        return True
    allowance = _allowances.get(producer.key)
    if allowance is None or allowance.until < time.monotonic() or allowance.tokens < count:
        return False
    allowance.tokens -= count
    return True


def charge(producer: Producer, count: int) -> None:
    """Take the events off the key's bucket; raises `ApiError` (429) with the time to wait.

    Without Redis each process goes by the limit alone: too much by the number of processes, for
    as long as Redis is away. An intake that refused events then would lose them.
    """
    global _silent_until
    if spend(producer, count):
        return
    rate = producer.rate_limit
    burst = max(rate, _SMALLEST_BURST)
    want = max(count, rate // _LEASE_PART)
    if time.monotonic() < _silent_until:
        granted, wait = _without_redis(producer, count, want)
    else:
        name = f"intake:{producer.key}"
        try:
            granted, wait = lease(name, rate=rate, burst=burst, need=count, want=want)
        except RedisError:
            _silent_until = time.monotonic() + _SULK_SECONDS
            granted, wait = _without_redis(producer, count, want)
    if not granted:
        raise ApiError(
            "rate_limited",
            f"This key may post {rate} events per second.",
            status_code=429,
            wait=wait,
        )
    left = _allowances.setdefault(producer.key, _Allowance())
    left.tokens = granted - count
    left.until = time.monotonic() + _LEASE_SECONDS


@dataclass(slots=True)
class _Window:
    second: int = 0
    spent: int = 0


_windows: dict[str, _Window] = {}


def _without_redis(producer: Producer, count: int, want: int) -> tuple[int, float]:
    window = _windows.setdefault(producer.key, _Window())
    moment = time.monotonic()
    if window.second != int(moment):
        window.second, window.spent = int(moment), 0
    if window.spent >= max(producer.rate_limit, _SMALLEST_BURST):
        return 0, 1.0 - moment % 1
    window.spent += want
    return want, 0.0

"""How fast a provider is fed: one token bucket per provider, shared by all workers."""

from redis.exceptions import RedisError

from common.buckets import draw

# Without Redis nobody knows how many workers share the limit, so each takes this part of it.
_FALLBACK_SHARE = 0.1


def take(bucket: str, rate: int, count: int) -> float:
    """Take `count` tokens of a bucket refilled with `rate` per second, holding one second's worth.

    Returns the seconds to wait before acting. Redis lost: slower, never open.
    """
    try:
        return draw(f"pace:{bucket}", rate=rate, burst=rate, count=count)
    except RedisError:
        return count / max(rate * _FALLBACK_SHARE, 0.1)

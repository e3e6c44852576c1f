"""How fast a provider is fed: one token bucket per provider, shared by all workers."""

from functools import cache

from redis.commands.core import Script
from redis.exceptions import RedisError

from common.bell import redis_client

# Without Redis nobody knows how many workers share the limit, so each takes this part of it.
_FALLBACK_SHARE = 0.1

# Continuous refill, in the server's time. Takes n tokens, going into debt if need be, and answers
# how many milliseconds to wait before using them: callers queue up in order instead of spinning.
_TAKE = """
local rate, burst, n = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local t = redis.call('TIME')
local now = t[1] * 1000 + t[2] / 1000
local tokens, at = unpack(redis.call('HMGET', KEYS[1], 'tokens', 'at'))
tokens, at = tonumber(tokens or burst), tonumber(at or now)
tokens = math.min(burst, tokens + math.max(0, now - at) * rate / 1000) - n
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', tostring(now))
redis.call('PEXPIRE', KEYS[1], 60000 + math.ceil(burst / rate * 1000))
if tokens >= 0 then return 0 end
return math.ceil(-tokens / rate * 1000)
"""


def take(bucket: str, rate: int, count: int) -> float:
    """Take `count` tokens of a bucket refilled with `rate` per second, holding one second's worth.

    Returns the seconds to wait before acting. Redis lost: slower, never open.
    """
    try:
        return int(_script()(keys=[f"pace:{bucket}"], args=[rate, rate, count])) / 1000
    except RedisError:
        return count / max(rate * _FALLBACK_SHARE, 0.1)


@cache
def _script() -> Script:
    return redis_client().register_script(_TAKE)

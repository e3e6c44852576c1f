"""Token buckets in Redis, shared by all processes: continuous refill, in the server's time.

Both functions raise `redis.RedisError`; what to do without Redis is the caller's to know.
"""

from functools import cache

from redis.commands.core import Script

from common.bell import redis_client

_REFILL = """
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local t = redis.call('TIME')
local now = t[1] * 1000 + t[2] / 1000
local tokens, at = unpack(redis.call('HMGET', KEYS[1], 'tokens', 'at'))
tokens, at = tonumber(tokens or burst), tonumber(at or now)
tokens = math.min(burst, tokens + math.max(0, now - at) * rate / 1000)
local function keep(left)
    redis.call('HSET', KEYS[1], 'tokens', tostring(left), 'at', tostring(now))
    redis.call('PEXPIRE', KEYS[1], 60000 + math.ceil(burst / rate * 1000))
end
"""

_DRAW = """
tokens = tokens - tonumber(ARGV[3])
keep(tokens)
if tokens >= 0 then return 0 end
return math.ceil(-tokens / rate * 1000)
"""

_LEASE = """
if tokens < 1 then return {0, math.ceil((1 - tokens) / rate * 1000)} end
local need, want = tonumber(ARGV[3]), tonumber(ARGV[4])
local granted = math.max(need, math.min(want, math.floor(tokens)))
keep(tokens - granted)
return {granted, 0}
"""


def draw(name: str, *, rate: int, burst: int, count: int) -> float:
    """Take `count` tokens, going into debt if need be; returns the seconds to wait before using
    them. Callers queue up in order instead of spinning."""
    return int(_script(_DRAW)(keys=[name], args=[rate, burst, count])) / 1000


def lease(name: str, *, rate: int, burst: int, need: int, want: int) -> tuple[int, float]:
    """Take up to `want` tokens, at least `need`, going into debt for those; (0, seconds to wait)
    when the bucket is empty."""
    granted, wait = _script(_LEASE)(keys=[name], args=[rate, burst, need, want])
    return int(granted), int(wait) / 1000


@cache
def _script(what: str) -> Script:
    return redis_client().register_script(_REFILL + what)


def forget_scripts() -> None:
    """For a process whose Redis has moved."""
    _script.cache_clear()

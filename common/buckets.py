"""Token buckets with continuous refill: in Redis, shared by all processes and in the server's
time, or in this process alone.

The functions that ask Redis raise `redis.RedisError`; what to do without it is the caller's to
know.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from common.valkey import script

_REFILL = """
local t = redis.call('TIME')
local now = t[1] * 1000 + t[2] / 1000
local function refilled(key, rate, burst)
    local tokens, at = unpack(redis.call('HMGET', key, 'tokens', 'at'))
    tokens, at = tonumber(tokens or burst), tonumber(at or now)
    return math.min(burst, tokens + math.max(0, now - at) * rate / 1000)
end
local function keep(key, tokens, rate, burst)
    redis.call('HSET', key, 'tokens', tostring(tokens), 'at', tostring(now))
    redis.call('PEXPIRE', key, math.ceil(60000 + (burst - math.min(0, tokens)) / rate * 1000))
end
"""

_LEASE = (
    _REFILL
    + """
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local need, want = tonumber(ARGV[3]), tonumber(ARGV[4])
local tokens = refilled(KEYS[1], rate, burst)
if tokens < 1 then return {0, math.ceil((1 - tokens) / rate * 1000)} end
local granted = math.max(need, math.min(want, math.floor(tokens)))
keep(KEYS[1], tokens - granted, rate, burst)
return {granted, 0}
"""
)

# ARGV: the longest wait; rate and burst of each key; then per draw the keys it takes a token of.
_DRAW = (
    _REFILL
    + """
local within, tokens, rates, bursts, waits = tonumber(ARGV[1]), {}, {}, {}, {}
for i, key in ipairs(KEYS) do
    rates[i], bursts[i] = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
    tokens[i] = refilled(key, rates[i], bursts[i])
end
local promised = {unpack(tokens)}
for n = 2 + 2 * #KEYS, #ARGV do
    local wait, taken = 0, {}
    for index in ARGV[n]:gmatch('%d+') do
        local i = tonumber(index)
        taken[#taken + 1] = i
        wait = math.max(wait, (1 - promised[i]) / rates[i] * 1000)
    end
    for _, i in ipairs(taken) do
        promised[i] = promised[i] - 1
        if wait <= within then tokens[i] = tokens[i] - 1 end
    end
    waits[#waits + 1] = math.ceil(wait)
end
for i, key in ipairs(KEYS) do keep(key, tokens[i], rates[i], bursts[i]) end
return waits
"""
)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where tokens come from: `rate` per second, at most `burst` of them saved up."""

    name: str
    rate: float
    burst: float


def draw(draws: Sequence[Sequence[Bucket]], *, within: float) -> list[float]:
    """For each draw, which takes one token from each of its buckets, the seconds until it may be
    used. One call, whatever the number.

    Draws that would have to wait longer than `within` take nothing; their answer is when, behind
    those before them in the list, it would be their turn. Buckets go into debt for the others, so
    callers queue up in order instead of spinning.
    """
    buckets = {bucket: None for of_one in draws for bucket in of_one}
    index = {bucket: str(n) for n, bucket in enumerate(buckets, start=1)}
    limits = [limit for bucket in buckets for limit in (bucket.rate, bucket.burst)]
    taken = [",".join(index[bucket] for bucket in of_one) for of_one in draws]
    keys = [bucket.name for bucket in buckets]
    waits = script(_DRAW)(keys=keys, args=[within * 1000, *limits, *taken])
    return [int(wait) / 1000 for wait in waits]


def lease(name: str, *, rate: int, burst: int, need: int, want: int) -> tuple[int, float]:
    """Take up to `want` tokens, at least `need`, going into debt for those; (0, seconds to wait)
    when the bucket is empty."""
    granted, wait = script(_LEASE)(keys=[name], args=[rate, burst, need, want])
    return int(granted), int(wait) / 1000


class LocalBuckets:
    """The same as `draw` for one process. Buckets start empty, or full.

    Beyond `most` buckets all are forgotten, and start anew.
    """

    def __init__(self, *, start_full: bool = False, most: int = 100_000) -> None:
        self._start_full, self._most = start_full, most
        self._levels: dict[str, tuple[float, float]] = {}

    def draw(self, draws: Sequence[Sequence[Bucket]], *, within: float) -> list[float]:
        """See the function of this name."""
        now = time.monotonic()
        tokens = {b: self._refilled(b, now) for of_one in draws for b in of_one}
        promised = dict(tokens)
        waits = []
        for of_one in draws:
            wait = max((max(0.0, (1 - promised[b]) / b.rate) for b in of_one), default=0.0)
            for bucket in of_one:
                promised[bucket] -= 1
                if wait <= within:
                    tokens[bucket] -= 1
            waits.append(wait)
        if len(self._levels) > self._most:
            self._levels.clear()
        self._levels |= {bucket.name: (level, now) for bucket, level in tokens.items()}
        return waits

    def _refilled(self, bucket: Bucket, now: float) -> float:
        start = bucket.burst if self._start_full else 0.0
        level, at = self._levels.get(bucket.name, (start, now))
        return min(bucket.burst, level + (now - at) * bucket.rate)

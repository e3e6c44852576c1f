"""The journal of a batch's hand-overs, so that a crash leaves one call in doubt per connection and
not the whole batch.

PostgreSQL records `dispatching` for a whole batch in one commit and the outcomes in another. In
between, this journal (one Redis hash per batch) says which messages the worker has *begun* and
what came of them. What is believed after a crash:

* the hash exists, and the server that answers now cannot have lost an entry of it: no entry →
  never begun, may be sent; "done" → that verdict; begun and not done → unknown. Asking writes
  "revoked" for what was never begun, atomically, so a worker that was only frozen finds its right
  to begin gone.
* anything else → unknown, all of it.

A server cannot have lost an entry if it is the same process (its run id stands in the hash), or if
it syncs its log before it answers (`appendonly yes`, `appendfsync always`: the embedded one does),
had no replicas, and was never one itself. Flushed, evicted, restarted with a lazier log, failed
over: not believed. A journal is never required: without Redis a batch is a single message.
"""

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import msgspec
import redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError, ResponseError

from common.valkey import redis_client, script
from delivery.verdicts import Outcome, Verdict

_KEEP_SECONDS = 86_400
_POLICY_SECONDS = 1.0
_BEGUN = "begun"
_REVOKED = "revoked"

# What a server says about itself; `durable` = nothing it has answered can be lost by its end.
_SELF = """
local info = redis.call('INFO', 'server') .. redis.call('INFO', 'persistence')
    .. redis.call('INFO', 'replication')
local function says(name) return info:match('\\n' .. name .. ':([%w-]+)') end
local run_id = says('run_id')
local durable = ARGV[1] == '1' and says('aof_enabled') == '1' and says('connected_slaves') == '0'
    and says('second_repl_offset') == '-1'
"""

_OPEN = (
    _SELF
    + """
if KEYS[2] then redis.call('UNLINK', KEYS[2]) end
redis.call('HSET', KEYS[1], 'server', run_id, 'durable', durable and '1' or '0')
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
"""
)

_REVOKE = (
    _SELF
    + """
local writer, was_durable = unpack(redis.call('HMGET', KEYS[1], 'server', 'durable'))
if not (run_id and writer == run_id) and not (was_durable == '1' and durable) then return false end
local fates = {}
for i = 2, #ARGV do
  redis.call('HSETNX', KEYS[1], ARGV[i], 'revoked')
  fates[i - 1] = redis.call('HGET', KEYS[1], ARGV[i])
end
return fates
"""
)


_Command = tuple[str, str, str, str | bytes]


class JournalLost(Exception):
    """Redis did not confirm an entry: nothing further of the batch may be handed over."""


class Journal:
    """The writing side, held by the worker that hands a batch over: one per connection, since
    each notes an outcome together with its next beginning."""

    def __init__(self, handover_id: UUID) -> None:
        self._handover_id = handover_id
        self.key = _key(handover_id)
        self._pool = redis_client().connection_pool
        self._connection: Any = None  # its methods have no types
        self._done: list[tuple[UUID, Verdict]] = []
        self._lanes: list[Journal] = []

    def lane(self) -> "Journal":
        """The same journal for another connection."""
        lane = Journal(self._handover_id)
        self._lanes.append(lane)
        return lane

    def begin(self, messages: Sequence[UUID]) -> list[bool]:
        """Claim the right to hand these messages over; False for one that was revoked. The
        outcomes told so far go along.

        Raises `JournalLost` when the answer is not known.
        """
        commands = self._commands(messages)
        try:
            written = self._answers(commands)
        except RedisError as error:
            raise JournalLost from error
        self._done.clear()
        return [bool(right) for right in written[-len(messages) :]]

    async def begin_soon(self, client: AsyncRedis, messages: Sequence[UUID]) -> list[bool]:
        """As `begin`, on an event loop's client; what is told meanwhile is noted the next time."""
        pipe: Any = client.pipeline(transaction=False)
        noted = len(self._done)
        for command in self._commands(messages):
            pipe.execute_command(*command)
        try:
            written = await pipe.execute()
        except RedisError as error:
            raise JournalLost from error
        del self._done[:noted]
        return [bool(right) for right in written[-len(messages) :]]

    def done(self, verdicts: Iterable[tuple[UUID, Verdict]]) -> None:
        """Tell outcomes; they are noted with the next `begin`, or by `flush`. Until then a crash
        leaves these messages, and no others, in doubt."""
        self._done.extend(verdicts)

    def flush(self) -> None:
        """Note what was told now, because PostgreSQL will not have it soon. A failure is no harm:
        what is begun and not done counts as unknown."""
        commands = [c for journal in (self, *self._lanes) for c in journal._notes()]
        if commands:
            with suppress(RedisError):
                self._answers(commands)
            self.release()

    def release(self) -> None:
        """Let others have the connection; the next entry asks for one again."""
        if self._connection is not None:
            self._pool.release(self._connection)
            self._connection = None

    def _answers(self, commands: Sequence[_Command]) -> list[Any]:
        """One round trip. As a pipeline of redis-py's, which costs three times as much and would
        try again: whether the first time was heard is what nobody knows then."""
        if self._connection is None:
            self._connection = self._pool.get_connection()
        try:
            self._connection.send_packed_command(self._connection.pack_commands(commands))
            return [self._connection.read_response() for _ in commands]
        except BaseException:
            # Answers that were not read would be taken for the next one's.
            self._connection.disconnect()
            self.release()
            raise

    def _commands(self, messages: Sequence[UUID]) -> list[_Command]:
        claims: list[_Command] = [("HSETNX", self.key, str(m), _BEGUN) for m in messages]
        return [*self._notes(), *claims]

    def _notes(self) -> list[_Command]:
        return [
            ("HSET", self.key, str(message), msgspec.json.encode(verdict))
            for message, verdict in self._done
        ]


def open_journal(handover_id: UUID) -> Journal | None:
    """A journal for a new batch, or None when there is no Redis to keep it."""
    journal = Journal(handover_id)
    superseded = _closed.pop() if _closed else ""
    keys = [journal.key, superseded] if superseded else [journal.key]
    try:
        client = redis_client()
        script(_OPEN)(keys=keys, args=[int(_syncs_before_it_answers(client)), _KEEP_SECONDS])
    except RedisError:
        return None
    return journal


def close_journal(journal: Journal) -> None:
    """The batch's outcomes are in PostgreSQL: its journal goes when this process opens the next,
    or expires."""
    _closed[:] = [journal.key]


_closed: list[str] = []


def revoke(handover_id: UUID, messages: Sequence[UUID]) -> dict[UUID, Verdict | None]:
    """Take the batch away from its worker: a verdict per message, None for "never begun".

    After this a message with None cannot be begun any more. Unprovable ones are UNKNOWN.
    """
    unprovable = Verdict(Outcome.UNKNOWN, "the worker died and its journal is lost")
    try:
        syncs = _syncs_before_it_answers(redis_client())
        ids = [str(message) for message in messages]
        fates = script(_REVOKE)(keys=[_key(handover_id)], args=[int(syncs), *ids])
    except RedisError:
        fates = None
    if not fates:
        return dict.fromkeys(messages, unprovable)
    return {m: _read(bytes(fate).decode()) for m, fate in zip(messages, fates, strict=True)}


def _syncs_before_it_answers(client: redis.Redis) -> bool:
    """`appendfsync always`. A managed server may refuse to say; it is then taken for a lazy one."""
    global _policy
    if _policy is None or time.monotonic() > _policy[0]:
        try:
            answer = client.config_get("appendfsync").get("appendfsync") == "always"
        except ResponseError:
            answer = False
        _policy = (time.monotonic() + _POLICY_SECONDS, answer)
    return _policy[1]


_policy: tuple[float, bool] | None = None


def _read(fate: str) -> Verdict | None:
    if fate == _REVOKED:
        return None
    if fate == _BEGUN:
        return Verdict(Outcome.UNKNOWN, "the worker died during the hand-over")
    try:
        return msgspec.json.decode(fate, type=Verdict)
    except msgspec.DecodeError:
        return Verdict(Outcome.UNKNOWN, "the worker's entry in its journal cannot be read")


def _key(handover_id: UUID) -> str:
    return f"handover:{handover_id}"

"""The journal of a batch's hand-overs, so that a crash leaves one message in doubt, not fifty.

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

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

import redis
from redis.exceptions import RedisError

from common.bell import redis_client
from delivery.verdicts import Outcome, Verdict

_KEEP_SECONDS = 86_400
_SERVER = "server"
_DURABLE = "durable"
_BEGUN = "begun"
_REVOKED = "revoked"

_REVOKE = """
local server = redis.call('INFO', 'server'):match('run_id:(%x+)')
local writer, durable = unpack(redis.call('HMGET', KEYS[1], 'server', 'durable'))
local same = server and writer == server
if not same and not (durable == '1' and ARGV[1] == '1') then return false end
local fates = {}
for i = 2, #ARGV do
  redis.call('HSETNX', KEYS[1], ARGV[i], 'revoked')
  fates[i - 1] = redis.call('HGET', KEYS[1], ARGV[i])
end
return fates
"""


def open_journal(handover_id: UUID) -> "Journal | None":
    """A journal for a new batch, or None when there is no Redis to keep it."""
    journal = Journal(handover_id)
    return journal if journal.open() else None


class JournalLost(Exception):
    """Redis did not confirm an entry: nothing further of the batch may be handed over."""


class Journal:
    """The writing side, held by the worker that hands a batch over."""

    def __init__(self, handover_id: UUID) -> None:
        self._key = _key(handover_id)
        self._client = redis_client()

    def open(self) -> bool:
        """Start the journal; False when there is no Redis to keep it."""
        try:
            server, durable = _server(self._client)
            if not server:
                return False
            pipe = self._client.pipeline(transaction=True)
            pipe.hset(self._key, mapping={_SERVER: server, _DURABLE: int(durable)})
            pipe.expire(self._key, _KEEP_SECONDS)
            pipe.execute()
        except RedisError:
            return False
        return True

    def begin(self, messages: Sequence[UUID]) -> list[bool]:
        """Claim the right to hand these messages over; False for one that was revoked.

        Raises `JournalLost` when the answer is not known.
        """
        try:
            pipe = self._client.pipeline(transaction=False)
            for message in messages:
                pipe.hsetnx(self._key, str(message), _BEGUN)
            return [bool(written) for written in pipe.execute()]
        except RedisError as error:
            raise JournalLost from error

    def done(self, verdicts: Iterable[tuple[UUID, Verdict]]) -> None:
        """Note outcomes. A failure is no harm: what is begun and not done counts as unknown."""
        try:
            entries: dict[Any, Any] = {
                str(message): json.dumps(asdict(verdict)) for message, verdict in verdicts
            }
            if entries:
                self._client.hset(self._key, mapping=entries)
        except RedisError:
            return

    def close(self) -> None:
        """Forget the batch, once PostgreSQL has its outcomes."""
        try:
            self._client.delete(self._key)
        except RedisError:
            return  # it expires


def revoke(handover_id: UUID, messages: Sequence[UUID]) -> dict[UUID, Verdict | None]:
    """Take the batch away from its worker: a verdict per message, None for "never begun".

    After this a message with None cannot be begun any more. Unprovable ones are UNKNOWN.
    """
    unprovable = Verdict(Outcome.UNKNOWN, "the worker died and its journal is lost")
    try:
        _, durable = _server(redis_client())
        ids = [str(message) for message in messages]
        fates = redis_client().eval(_REVOKE, 1, _key(handover_id), int(durable), *ids)
    except RedisError:
        fates = None
    if not fates:
        return dict.fromkeys(messages, unprovable)
    return {m: _read(bytes(fate).decode()) for m, fate in zip(messages, fates, strict=True)}


def _server(client: redis.Redis) -> tuple[str, bool]:
    """The server's run id, and whether nothing it has answered can be lost by its end."""
    pipe = client.pipeline(transaction=False)
    pipe.info()
    pipe.config_get("appendfsync")
    # A managed server may refuse CONFIG; it is then taken for a lazy one.
    info, config = pipe.execute(raise_on_error=False)
    if isinstance(info, Exception):
        raise info
    durable = (
        isinstance(config, dict)
        and config.get("appendfsync") == "always"
        and info.get("aof_enabled") == 1
        and info.get("connected_slaves") == 0
        and info.get("second_repl_offset") == -1
    )
    return str(info.get("run_id") or ""), durable


def _read(fate: str) -> Verdict | None:
    if fate == _REVOKED:
        return None
    if fate == _BEGUN:
        return Verdict(Outcome.UNKNOWN, "the worker died during the hand-over")
    entry = json.loads(fate)
    return Verdict(**{**entry, "outcome": Outcome(entry["outcome"])})


def _key(handover_id: UUID) -> str:
    return f"handover:{handover_id}"

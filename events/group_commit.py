"""Group commit: concurrent requests share one INSERT and one commit.

PostgreSQL flushes its log once per commit, and a request that waits for it costs nothing. So each
process writes one group at a time; what arrives while it does goes together with the next. On the
event loop itself: handing each group to a thread cost more than the INSERT.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import psycopg
from django.db import connections

from common.api import ApiError
from common.bell import ring
from events.steps import Steps, run_async

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

_MOST_ITEMS = 2_000
_MOST_BYTES = 16 * 1024 * 1024
"""In one statement. A single request may have 1,000 items or 5 MB."""
_MOST_WAITING = 64 * 1024 * 1024
"""Bytes of requests that wait for their turn; what comes then is told to come back."""
_RING_PAUSE = 0.005
"""Seconds between two rings: under load the bell would be half the work."""
_LOCK_TIMEOUT = "1s"
"""Who waits for a row somebody holds keeps the next group waiting."""

# SQLSTATE classes that say that the server, not the statement, is at fault: connection, operator,
# resources.
_AWAY = ("08", "57P", "53")


@dataclass(frozen=True, slots=True)
class _Request(Generic[Item, Outcome]):
    """What waits for a commit: `size` is the bytes it came in."""

    items: Sequence[Item]
    size: int
    future: "asyncio.Future[list[Outcome]]"


class GroupCommit(Generic[Item, Outcome]):
    """Keeps items for one event loop, on a connection of its own, and rings a lane.

    `keep` stores the items of several requests and tells one outcome per item, in order. It is run
    again, with all or with some of them, when it failed; each of its statements is a transaction.
    """

    def __init__(self, keep: Callable[[Sequence[Item]], Steps[list[Outcome]]], lane: str) -> None:
        self._steps = keep
        self._lane = lane
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._waiting: deque[_Request[Item, Outcome]] = deque()
        self._waiting_bytes = 0
        self._working: asyncio.Task[None] | None = None
        self._is_ring_due = False
        self._ringing: asyncio.Task[None] | None = None

    async def add(self, items: Sequence[Item], size: int = 0) -> list[Outcome]:
        """What became of the items. Returns after the commit; raises `psycopg.Error`, and
        `ApiError` when too much waits already. Who cancels it may have been too late."""
        if self._waiting_bytes > _MOST_WAITING:
            raise ApiError("overloaded", "Too much waits already.", status_code=503, wait=2)
        future: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(items, size, future))
        self._waiting_bytes += size
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        try:
            while self._waiting:
                group = self._next_group()
                if not group:
                    continue
                answers = await self._keep_group([request.items for request in group])
                for request, answer in zip(group, answers, strict=True):
                    _settle(request.future, answer)
                self._ring()
        finally:
            self._working = None

    def _next_group(self) -> list[_Request[Item, Outcome]]:
        """The oldest requests that fit into one statement; those that were given up are dropped."""
        group: list[_Request[Item, Outcome]] = []
        items = size = 0
        while self._waiting:
            request = self._waiting[0]
            items, size = items + len(request.items), size + request.size
            if group and (items > _MOST_ITEMS or size > _MOST_BYTES):
                break
            self._waiting.popleft()
            self._waiting_bytes -= request.size
            if not request.future.done():
                group.append(request)
        return group

    async def _keep_group(
        self, requests: Sequence[Sequence[Item]]
    ) -> list[list[Outcome] | Exception]:
        """What became of each request. One that cannot be stored, now or ever, fails alone: the
        others are kept without it."""
        try:
            outcomes = await self._keep([item for items in requests for item in items])
        except Exception as error:  # noqa: BLE001 - whatever it is, its request has to hear of it
            if len(requests) == 1 or is_away(error):
                return [error] * len(requests)
            alone = [await self._keep_group([request]) for request in requests]
            return [answer for (answer,) in alone]
        rest = iter(outcomes)
        return [[next(rest) for _ in items] for items in requests]

    async def _keep(self, items: Sequence[Item]) -> list[Outcome]:
        """Once more on a new connection when the old one turns out to be dead: what the first
        try committed without saying so is a duplicate to the second."""
        try:
            return await self._run(items)
        except Exception as error:
            if not is_away(error):
                raise
            if self._connection is not None:
                await self._connection.close()
                self._connection = None
            return await self._run(items)

    async def _run(self, items: Sequence[Item]) -> list[Outcome]:
        if self._connection is None:
            self._connection = await _connect()
        async with self._connection.cursor() as cursor:
            return await run_async(self._steps(items), cursor)

    def _ring(self) -> None:
        self._is_ring_due = True
        if self._ringing is None:
            self._ringing = asyncio.create_task(self._ring_while_due())

    async def _ring_while_due(self) -> None:
        """Ring at once, and once more for what was committed after the ring began."""
        try:
            while self._is_ring_due:
                self._is_ring_due = False
                await asyncio.to_thread(ring, self._lane)
                await asyncio.sleep(_RING_PAUSE)
        finally:
            self._ringing = None


def is_away(error: Exception) -> bool:
    """Whether the database cannot be reached or cannot work, rather than not do this."""
    if isinstance(error, OSError | psycopg.InterfaceError):
        return True
    if not isinstance(error, psycopg.OperationalError):
        return False
    return error.sqlstate is None or error.sqlstate.startswith(_AWAY)


async def _connect() -> psycopg.AsyncConnection[Any]:
    """A connection to Django's database on which each statement is a transaction."""
    parameters: dict[str, Any] = connections["default"].get_connection_params()
    for name in ("cursor_factory", "context"):  # those of Django's own, synchronous connection
        parameters.pop(name, None)
    options = f"{parameters.pop('options', '')} -c lock_timeout={_LOCK_TIMEOUT}"
    return await psycopg.AsyncConnection.connect(**parameters, options=options, autocommit=True)


def _settle(future: "asyncio.Future[list[Outcome]]", answer: list[Outcome] | Exception) -> None:
    if future.done():  # its client has gone
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)

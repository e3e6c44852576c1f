"""The intake on an event loop: no thread per request, no database on the way to a full commit.

A request costs a decoder, a few dictionary look-ups and its share of a commit. Bodies are read
within a limit and a deadline, so a slow or endless client holds a few kilobytes and nothing else.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psycopg
from django.db import DatabaseError, InterfaceError, OperationalError, connection
from rest_framework.exceptions import APIException

from common.api import ApiError
from common.clock import now
from events import limits
from events.bodies import Message, Receive, Send, read_body
from events.committer import Committer
from events.directory import Producer, Rules, producers, rules
from events.exchange import Post, Reply, WireFormat
from events.http import headers_of, is_redirected, log_failure, write_reply
from events.idempotency import answer_once, key_of
from events.intake import authorised, credentials, error_reply, inflated, is_plausible, read
from events.routes import route

T = TypeVar("T")
Scope = Message

# Beyond this a body is read on a thread: decoding a megabyte would keep everybody waiting.
_SMALL = 32 * 1024
_BODY_SECONDS = 10.0
_DATABASE_SECONDS = 15.0
"""After which a client is told to come back, whatever the database does."""

_AWAY = (
    OperationalError,
    InterfaceError,
    psycopg.OperationalError,
    psycopg.InterfaceError,
    OSError,
)

_STALE = Rules(version="stale")
_NOT_ASKED = Producer(key="", source="", scopes=frozenset(), rate_limit=0)


class Intake:
    """The ASGI application of `events.routes`."""

    def __init__(self) -> None:
        self._committer = Committer()
        # Apart, so that a slow one of them keeps only its own waiting.
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="read")
        self._lookups = ThreadPoolExecutor(1, thread_name_prefix="look-up")
        self._meters = ThreadPoolExecutor(1, thread_name_prefix="meter")
        self._replays = ThreadPoolExecutor(2, thread_name_prefix="replay")

    def serves(self, scope: Scope) -> bool:
        """Whether the request is a post of events. What Django would redirect to https, it may."""
        return (
            scope["type"] == "http"
            and scope["method"] == "POST"
            and route(scope["path"]) is not None
            and not is_redirected(scope)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reply = await self._reply(scope, receive)
        except APIException as error:
            reply = error_reply(error)
        except (*_AWAY, TimeoutError):
            reply = error_reply(unavailable())
        except (DatabaseError, psycopg.Error):
            reply = error_reply(ApiError("unstorable", "PostgreSQL cannot store this."))
        except Exception as error:  # noqa: BLE001 - the end of the lane; its text may quote the event
            log_failure(error)
            message = "This is our fault; it was logged."
            reply = error_reply(ApiError("error", message, status_code=500))
        await write_reply(reply, send)

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        found = route(scope["path"])
        assert found is not None  # `serves` has asked
        wire_format, path = found
        headers = headers_of(scope)
        token = credentials(headers)
        async with asyncio.timeout(_DATABASE_SECONDS):
            # A wrong key is told before the body is read.
            if token:
                authorised(await self._producer(token))
        limit = wire_format.MAX_BODY
        body = await read_body(scope["headers"], receive, limit=limit, seconds=_BODY_SECONDS)
        received_at = now()
        if encoding := headers.get("content-encoding", "").strip().lower():
            packed = body
            body = await _on(self._readers, lambda: inflated(packed, encoding, limit))
        post = Post(path, headers, body, received_at)
        async with asyncio.timeout(_DATABASE_SECONDS):
            return await self._answer(post, wire_format, token)

    async def _answer(self, post: Post, wire_format: WireFormat, token: str) -> Reply:
        if not token:
            token = await self._read(post, lambda: wire_format.token(post))
        # Asked again: a slow body may have outlived its key.
        producer = authorised(await self._producer(token))
        known = await self._rules()
        reading = await self._read(post, lambda: read(post, wire_format, producer, known))
        count = len(reading.items)
        if not limits.spend(producer, count):
            await _on(self._meters, lambda: limits.charge(producer, count))
        if wire_format.REPLAYS and (key := key_of(post)):
            return await _on(
                self._replays,
                lambda: reconnecting(lambda: answer_once(key, post, producer, reading)),
            )
        outcomes = await self._committer.submit(reading.items, known, len(post.body))
        return reading.answer(reading.items, outcomes)

    async def _producer(self, token: str) -> Producer | None:
        if not is_plausible(token):
            return None
        known = producers.peek(token, _NOT_ASKED)
        if known is not _NOT_ASKED:
            return known
        return await _on(self._lookups, lambda: reconnecting(lambda: producers.get(token)))

    async def _rules(self) -> Rules:
        known = rules.peek(None, _STALE)
        if known is not _STALE:
            return known
        return await _on(self._lookups, lambda: reconnecting(lambda: rules.get(None)))

    async def _read(self, post: Post, function: Callable[[], T]) -> T:
        return function() if len(post.body) <= _SMALL else await _on(self._readers, function)


async def _on(threads: ThreadPoolExecutor, function: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, function)


def reconnecting(function: Callable[[], T]) -> T:
    """Call it, and once more on a new connection when the thread's old one turns out to be dead.
    For functions that may be repeated."""
    try:
        return function()
    except (OperationalError, InterfaceError):
        connection.close()
        return function()


def unavailable() -> ApiError:
    """The answer while the database is away. A commit may have been the last it did: the same
    event again is safe, and the only way to know."""
    return ApiError("unavailable", "The database is not available.", status_code=503, wait=2)

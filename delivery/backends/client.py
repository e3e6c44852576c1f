"""The HTTP client that mail leaves through: one per process, on an event loop of its own, whose
connections stay open for the next call.

It trusts no server: one request per call, no redirects, an answer of `MOST_BYTES` at most within
twice `EMAIL_TIMEOUT` seconds, half of which are for the connection. It verifies certificates
against certifi's list or the one REQUESTS_CA_BUNDLE names, and takes the way round that the
environment's HTTPS_PROXY, HTTP_PROXY and NO_PROXY say, as `requests` does.
"""

import asyncio
import atexit
import os
import ssl
import sys
import threading
import zlib
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from typing import Any

import aiohttp
import certifi
import requests
from aiohttp.abc import AbstractStreamWriter
from django.conf import settings
from redis.asyncio import Redis as AsyncRedis
from requests.structures import CaseInsensitiveDict
from requests.utils import get_environ_proxies, select_proxy

from common.valkey import loop_client
from delivery.verdicts import HandoverError, Outcome, Verdict, of_connection

MOST_BYTES = 1_000_000
# Less than the 5 seconds after which Node's HTTP server and uvicorn hang up by default: what is
# written to a connection that the server is just closing is a doubt.
_REST_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Request:
    """What to POST."""

    url: str
    headers: Mapping[str, str]
    body: bytes


class _Body(aiohttp.BytesPayload):
    """Knows whether its writing has begun. Until then nobody can have taken the mail, whatever
    went wrong: on the way there, with a proxy, or with a header that cannot be written."""

    has_begun = False

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        self.has_begun = True
        await super().write_with_length(writer, content_length)


class Client:
    """Starts with its first call, and anew in a forked process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: aiohttp.ClientSession | None = None
        self._valkey: tuple[str, AsyncRedis] | None = None

    def open(self) -> asyncio.AbstractEventLoop:
        """The loop of this client, running. Raises `RuntimeError` or `OSError` when there is no
        room for its thread or its files."""
        with self._lock:
            if self._loop is None:
                self._loop = _running_loop()
            return self._loop

    def start(self, work: Coroutine[Any, Any, None]) -> "Future[None]":
        """Do it on the loop of this client, which is where `post` may be awaited. It has to be open
        already."""
        return asyncio.run_coroutine_threadsafe(work, self.open())

    @property
    def valkey(self) -> AsyncRedis:
        """The journal's server, for work on this loop."""
        if self._valkey is None or self._valkey[0] != settings.REDIS_URL:
            self._valkey = (settings.REDIS_URL, loop_client())
        return self._valkey[1]

    async def post(self, request: Request) -> requests.Response:
        """The answer, whatever its status; one that ends too soon, stalls or does not end as far as
        it came.

        Raises `HandoverError`: RETRY as long as the body was not begun, else UNKNOWN.
        """
        body = _Body(request.body)
        seconds = settings.EMAIL_TIMEOUT
        try:
            if self._session is None:
                self._session = _session()
            async with self._session.post(
                request.url,
                data=body,
                headers=request.headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=2 * seconds, connect=seconds),
                proxy=_proxy(request.url),
            ) as answer:
                return _response(answer, await _content(answer))
        except Exception as error:
            if not body.has_begun:
                raise HandoverError(of_connection(_cause(error))) from error
            # The server may have read all of it.
            verdict = Verdict(Outcome.UNKNOWN, f"no answer: {type(error).__name__}")
            raise HandoverError(verdict) from error

    def close(self) -> None:
        """Hang up."""
        with self._lock:
            loop = self._loop
            self._loop = None
        if loop is not None:
            asyncio.run_coroutine_threadsafe(self._hang_up(), loop).result(_REST_SECONDS)
            loop.call_soon_threadsafe(loop.stop)

    async def _hang_up(self) -> None:
        session, valkey = self._session, self._valkey
        self._session = self._valkey = None
        if session is not None:
            await session.close()
        if valkey is not None:
            await valkey[1].aclose()

    def forget(self) -> None:
        """In a child: the thread has stayed with the parent, the connections are the parent's."""
        self.__init__()  # type: ignore[misc]


client = Client()
os.register_at_fork(after_in_child=client.forget)
atexit.register(client.close)


def _running_loop() -> asyncio.AbstractEventLoop:
    loop = _new_loop()
    try:
        threading.Thread(target=loop.run_forever, name="http-client", daemon=True).start()
    except RuntimeError:
        loop.close()
        raise
    return loop


def _new_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop  # not made for Windows

    return uvloop.new_event_loop()


def _session() -> aiohttp.ClientSession:
    # How many calls there are at once is their maker's to say.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_REST_SECONDS, ssl=_trust())
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        # What is not asked for cannot be a bomb; see `_unpacked` for servers that do not listen.
        headers={"Accept-Encoding": "identity"},
    )


@cache
def _trust() -> ssl.SSLContext:
    named = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    place = named or certifi.where()
    if os.path.isdir(place):
        return ssl.create_default_context(capath=place)
    return ssl.create_default_context(cafile=place)


@cache
def _proxy(url: str) -> str | None:
    return select_proxy(url, get_environ_proxies(url)) or None


def _cause(error: Exception) -> Exception:
    """What a person would name as the reason."""
    reason = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
    if isinstance(error, aiohttp.ClientSSLError) or isinstance(reason, ssl.SSLError):
        return ssl.SSLError()
    return reason if isinstance(reason, Exception) and type(reason) is not OSError else error


async def _content(answer: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    try:
        async for chunk in answer.content.iter_any():
            parts.append(chunk)
            size += len(chunk)
            if size >= MOST_BYTES:
                break
    except (aiohttp.ClientError, TimeoutError):
        pass  # the head has said it all; where the body decides, half of one is no word
    content = b"".join(parts)[:MOST_BYTES]
    return _unpacked(content, answer.headers.get("Content-Encoding", ""))


def _unpacked(content: bytes, encoding: str) -> bytes:
    if encoding not in ("gzip", "deflate"):
        return content
    unpacking = zlib.decompressobj(wbits=47)  # 32 + 15: whichever of both it is
    try:
        return unpacking.decompress(content, MOST_BYTES)
    except zlib.error:
        return b""


def _response(answer: aiohttp.ClientResponse, content: bytes) -> requests.Response:
    return response(answer.status, content, answer.headers, answer.reason or "")


def response(
    status: int, content: bytes, headers: Mapping[str, str], reason: str = ""
) -> requests.Response:
    """An answer as Anymail reads them."""
    made = requests.Response()
    made.status_code = status
    made.reason = reason
    made.headers = CaseInsensitiveDict(headers)
    made.encoding = "utf-8"  # the charset a server names is its invention
    made._content = content
    return made

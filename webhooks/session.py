"""For questions to providers and their servers that are no mail: a session that trusts no server,
and a watchdog that ends connections by the clock on the wall, however slowly they drip."""

import socket
import threading
import time
from typing import Any

import requests
from django.conf import settings
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import DecodeError, IncompleteRead, ProtocolError
from urllib3.response import BaseHTTPResponse
from urllib3.util.retry import Retry

_CHUNK = 16_384


class Watchdog:
    """Shuts sockets down whose time is over. One thread per process, alive while it is needed."""

    def __init__(self) -> None:
        self._watched: dict[int, tuple[float, Any]] = {}
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None

    def watch(self, connection: Any, deadline: float) -> None:
        """Cut `connection` (one with a `sock`) off at `deadline`, by `time.monotonic`."""
        with self._lock:
            self._watched[id(connection)] = (deadline, connection)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()
            self._changed.notify()

    def forget(self, connection: Any) -> None:
        """The answer is there."""
        with self._lock:
            self._watched.pop(id(connection), None)

    def _run(self) -> None:
        with self._lock:
            while self._watched:
                now = time.monotonic()
                for key, (deadline, connection) in list(self._watched.items()):
                    if deadline <= now:
                        del self._watched[key]
                        _cut(connection)
                nearest = min((deadline for deadline, _ in self._watched.values()), default=now)
                self._changed.wait(max(0.01, nearest - now))
            self._thread = None


def _cut(connection: Any) -> None:
    sock = connection.sock
    if sock is not None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


watchdog = Watchdog()


class _Deadline:
    """Of urllib3's connections: the head of an answer has to be there in time."""

    def getresponse(self) -> Any:
        watchdog.watch(self, time.monotonic() + settings.EMAIL_TIMEOUT)
        try:
            return super().getresponse()  # type: ignore[misc]
        finally:
            watchdog.forget(self)


class _Connection(_Deadline, HTTPConnection):
    pass


class _SecureConnection(_Deadline, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Adapter(HTTPAdapter):
    """Reads every answer itself, up to a size and a moment. Never repeats a request."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__(max_retries=Retry(0, read=False))
        self._most_bytes = most_bytes

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        manager: PoolManager = self.poolmanager
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        deadline = time.monotonic() + settings.EMAIL_TIMEOUT
        kwargs["stream"] = True
        response = super().send(request, *args, **kwargs)
        try:
            content = _read(response.raw, deadline, self._most_bytes)
        except Exception as error:  # whatever a server can do to a body
            response.close()
            raise requests.exceptions.ConnectionError(error, request=request) from error
        response._content = content
        response._content_consumed = True
        return response


def _read(raw: BaseHTTPResponse, deadline: float, most_bytes: int) -> bytes:
    """The body, or what there is of one that ends too soon: the head has said it all."""
    parts, size = [], 0
    while chunk := _next(raw):
        parts.append(chunk)
        size += len(chunk)
        if size > most_bytes:
            raise ValueError("the answer is too large")
        if time.monotonic() > deadline:
            raise TimeoutError("the answer takes too long")
    return b"".join(parts)


def _next(raw: BaseHTTPResponse) -> bytes:
    try:
        return raw.read1(_CHUNK, decode_content=True)
    except (IncompleteRead, DecodeError, ProtocolError):
        return b""


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Nowhere: a redirect would carry the mail and the key to another host."""


def guarded_session(most_bytes: int) -> requests.Session:
    """A session that trusts no server: one request per call, no redirects, answers of so many
    bytes at most, within `EMAIL_TIMEOUT` seconds for their head and as many for their body."""
    session = _Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(most_bytes))
    return session

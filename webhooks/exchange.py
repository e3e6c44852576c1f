"""One request and its answer, within a deadline by the clock on the wall and a limit on size.

Not `requests`: its timeouts are of each step, so a server that drips holds a worker for as long as
it likes, and it connects to whatever a name means at that moment.
"""

import http.client
import os
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from functools import lru_cache

import certifi

from webhooks.guard import Deadline, Place, Unreachable, connect, place_of

_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `is_whole` is false when the body was cut: too large, or too slow."""

    status: int
    headers: Message
    body: bytes
    is_whole: bool


def exchange(
    method: str,
    url: str,
    *,
    seconds: float,
    most_bytes: int,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Ask once; redirects are answers like any other. Returns after `seconds` at the latest.

    Raises `Denied` when the guard says no, and `Unreachable` when no status came in time.
    """
    place, deadline = place_of(url), Deadline.after(seconds)
    with connect(place, deadline) as plain, _ending(plain, deadline):
        try:
            secured = _secured(plain, place, deadline)
            with _asking(secured, place) as connection:
                sent = {"Host": place.authority, "Connection": "close", **(headers or {})}
                connection.request(method, place.target, body=body, headers=sent)
                return _read(connection.getresponse(), deadline, most_bytes)
        except ssl.SSLError as error:
            deadline.left()
            is_name = isinstance(error, ssl.SSLCertVerificationError)
            raise Unreachable("its certificate is not valid" if is_name else "TLS") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            deadline.left()
            raise Unreachable(_words(error)) from None


@contextmanager
def _ending(plain: socket.socket, deadline: Deadline) -> Iterator[None]:
    """End the connection at the deadline, whatever it is in the middle of."""
    # A duplicate, because TLS takes the first handle away; the connection is the same.
    with plain.dup() as handle:

        def end() -> None:
            with suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(deadline.left(), end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()


@contextmanager
def _asking(secured: socket.socket, place: Place) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(place.host, place.port)
    connection.sock = secured
    try:
        yield connection
    finally:
        connection.close()


def _secured(plain: socket.socket, place: Place, deadline: Deadline) -> socket.socket:
    """The connection under TLS, to the host by its name whatever address it was found at."""
    # A little longer: it is `_ending` that ends it, and what came until then is kept.
    plain.settimeout(deadline.left() + 1)
    if place.scheme != "https":
        return plain
    return _context(_authorities()).wrap_socket(plain, server_hostname=place.host)


def _authorities() -> str:
    """Who is trusted: as `requests` decides it, for the rest of the application does by that."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or certifi.where()


@lru_cache(maxsize=4)
def _context(authorities: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authorities)


def _read(response: http.client.HTTPResponse, deadline: Deadline, most_bytes: int) -> Answer:
    body, is_whole = bytearray(), False
    # Piece by piece: what came before the connection broke is kept.
    with suppress(OSError, http.client.HTTPException, Unreachable):
        while len(body) <= most_bytes and (piece := response.read1(_PIECE_BYTES)):
            body += piece
        deadline.left()  # an end that we have made ourselves is none
        is_whole = len(body) <= most_bytes and _is_at_its_end(response)
    return Answer(response.status, response.headers, bytes(body[:most_bytes]), is_whole)


def _is_at_its_end(response: http.client.HTTPResponse) -> bool:
    """By its framing. Without any the end of the connection is the end; with one that cannot be
    understood nobody knows."""
    if response.length is not None:
        return response.length == 0
    is_framed = any(name in response.headers for name in ("Transfer-Encoding", "Content-Length"))
    return bool(response.chunked) or not is_framed


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    return "the connection was lost" if isinstance(error, OSError) else "no answer in HTTP"

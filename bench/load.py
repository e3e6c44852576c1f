"""`python -m bench.load`: the load generator. Reads a `Job` as JSON from stdin, writes a `Load`.

A process of its own on raw sockets, because whatever it costs is taken from the server's cores:
requests are made before the clock starts, and of an answer only the status and the length are
read. A reply that is no 2xx, or a connection that is closed, ends the run.
"""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import msgspec
import uvloop

from bench import events


class Call(msgspec.Struct, frozen=True):
    """A request that somebody else has made."""

    path: str
    headers: dict[str, str]
    body: bytes


class Job(msgspec.Struct, frozen=True):
    """What to post where."""

    port: int
    path: str = ""
    authorization: str = ""
    prefix: str = ""
    """Of the events' ids; two jobs with the same one post the same events."""
    events: int = 0
    batch: int = 1
    calls: str = ""
    """A file with a list of `Call` in MessagePack, to be posted instead of events."""
    connections: int = 16
    rate: float = 0.0
    """Requests per second, whether or not the answers keep up; 0: one as soon as a connection
    is free."""


class Load(msgspec.Struct, frozen=True):
    """When each request was sent, or was due where the job has a rate, and when its answer was
    complete: `time.monotonic_ns`, which is the same clock in every process."""

    sent_ns: list[int]
    answered_ns: list[int]


class LoadError(Exception):
    """The server answered with an error or not at all."""


class Client:
    """Posts the requests over `connections` connections; use once."""

    def __init__(self, requests: Sequence[bytes], *, rate: float) -> None:
        self._requests = requests
        self._rate = rate
        self._waiting: deque[int] = deque()
        self._idle: deque[Connection] = deque()
        self._left = len(requests)
        self._sent_ns = [0] * len(requests)
        self._answered_ns = [0] * len(requests)

    async def run(self, port: int, connections: int) -> Load:
        """Returns when every request has its 2xx; raises `LoadError` at the first that has not."""
        loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = loop.create_future()
        opened = [
            await loop.create_connection(lambda: Connection(self), "127.0.0.1", port)
            for _ in range(connections)
        ]
        self._idle.extend(connection for _, connection in opened)
        if self._rate:
            self._schedule(loop)
        else:
            self._waiting.extend(range(len(self._requests)))
            self._send_waiting()
        try:
            await self._done
        finally:
            for transport, _ in opened:
                transport.close()
        return Load(self._sent_ns, self._answered_ns)

    def answered(self, connection: "Connection", number: int) -> None:
        """The request with this number has its answer; the connection is free."""
        self._answered_ns[number] = time.monotonic_ns()
        self._left -= 1
        self._idle.append(connection)
        self._send_waiting()
        if not self._left and not self._done.done():
            self._done.set_result(None)

    def failed(self, reason: str) -> None:
        """End the run."""
        if not self._done.done():
            self._done.set_exception(LoadError(reason))

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        start = loop.time()
        for number in range(len(self._requests)):
            loop.call_at(start + number / self._rate, self._due, number)

    def _due(self, number: int) -> None:
        # Not when a connection is free for it: to its sender a request that has to wait is slow.
        self._sent_ns[number] = time.monotonic_ns()
        self._waiting.append(number)
        self._send_waiting()

    def _send_waiting(self) -> None:
        while self._waiting and self._idle:
            number = self._waiting.popleft()
            if not self._rate:
                self._sent_ns[number] = time.monotonic_ns()
            # The one that has rested longest: the server closes what rests for half a minute.
            self._idle.popleft().post(number, self._requests[number])


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._buffer = b""
        self._number = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are transports by their methods only.
        self._transport = cast(asyncio.Transport, transport)

    def post(self, number: int, request: bytes) -> None:
        """Send the request; the client hears of its answer."""
        self._number = number
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            length = reply_length(self._buffer)
        except LoadError as error:
            self._client.failed(str(error))
            return
        if length is None or len(self._buffer) < length:
            return
        if not self._buffer.startswith(b"HTTP/1.1 2"):
            self._client.failed(self._buffer[:1000].decode(errors="replace"))
            return
        self._buffer = b""
        self._client.answered(self, self._number)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.failed("the server closed a connection")


def reply_length(buffer: bytes) -> int | None:
    """The length of the answer that begins in `buffer`, head included; None while the head is
    incomplete. Raises `LoadError` for an answer that does not say how long it is."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = buffer[:end].lower()
    _, found, rest = head.partition(b"\r\ncontent-length:")
    if not found:
        raise LoadError("an answer without Content-Length")
    return end + 4 + int(rest.partition(b"\r\n")[0])


def requests_of(job: Job) -> list[bytes]:
    """The job's requests, byte by byte."""
    if job.calls:
        calls = msgspec.msgpack.decode(Path(job.calls).read_bytes(), type=list[Call])
        return [_request(call, job.port) for call in calls]
    head = (
        f"POST {job.path} HTTP/1.1\r\nHost: 127.0.0.1:{job.port}\r\n"
        f"Authorization: {job.authorization}\r\nContent-Type: application/json\r\n"
    )
    return [
        f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        for body in events.bodies(job.prefix, events=job.events, batch=job.batch)
    ]


def _request(call: Call, port: int) -> bytes:
    lines = [
        f"POST {call.path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Content-Type: application/json",
        f"Content-Length: {len(call.body)}",
        *(f"{name}: {value}" for name, value in call.headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + call.body


def main() -> int:
    """Run the job; the exit code is 1 and stderr has the reason when it failed."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    client = Client(requests_of(job), rate=job.rate)
    try:
        load = uvloop.run(client.run(job.port, job.connections))
    except (LoadError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(load))
    return 0


if __name__ == "__main__":
    sys.exit(main())

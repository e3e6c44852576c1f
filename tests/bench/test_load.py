"""The load generator, against servers that do and do not behave."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress

import msgspec
import pytest
import uvloop

from bench import events
from bench.load import Client, Job, Load, LoadError, reply_length, requests_of

OK = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}"

Answer = Callable[[bytes], bytes]


async def serve(answer: Answer, use: Callable[[int], Awaitable[Load]]) -> tuple[Load, list[bytes]]:
    """What `use` made of a server on its port, and the request bodies that server got."""
    got: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError), closing(writer):  # until the client has gone
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
                got.append(await reader.readexactly(length))
                # In two pieces, as a network may deliver it.
                whole = answer(got[-1])
                writer.write(whole[:20])
                await asyncio.sleep(0)
                writer.write(whole[20:])

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        return await use(server.sockets[0].getsockname()[1]), got
    finally:
        server.close()
        await server.wait_closed()


def run(answer: Answer, *, rate: float = 0.0, **job: int) -> tuple[Load, list[bytes]]:
    def use(port: int) -> Awaitable[Load]:
        posted = Job(port, "/events", "Bearer key", "p", **{"events": 40, **job})
        return Client(requests_of(posted), rate=rate).run(port, connections=4)

    return uvloop.run(serve(answer, use))


@pytest.mark.parametrize("rate", [0.0, 1000.0])
def test_every_event_is_posted_once_and_its_answer_timed(rate: float) -> None:
    load, bodies = run(lambda body: OK, rate=rate)
    posted = Counter(msgspec.json.decode(body)["event_id"] for body in bodies)
    assert posted == {events.event_id("p", number): 1 for number in range(40)}
    times = zip(load.sent_ns, load.answered_ns, strict=True)
    assert all(sent < answered for sent, answered in times)


def test_events_go_in_lists_when_there_is_a_batch() -> None:
    _, bodies = run(lambda body: OK, batch=15)
    assert sorted(len(msgspec.json.decode(body)) for body in bodies) == [10, 15, 15]


def test_request_that_waits_for_a_connection_counts_from_when_it_was_due() -> None:
    # All are due before the first answer can come.
    load, _ = run(lambda body: OK, rate=1e9)
    assert max(load.sent_ns) < min(load.answered_ns)


def test_answer_that_is_no_2xx_fails_the_run() -> None:
    def refuse(body: bytes) -> bytes:
        return b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"

    with pytest.raises(LoadError, match="429 Too Many Requests"):
        run(refuse)


def test_answer_without_a_length_fails_the_run() -> None:
    with pytest.raises(LoadError, match="Content-Length"):
        run(lambda body: b"HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\n\r\n")


@pytest.mark.parametrize(
    ("buffer", "length"),
    [
        (b"", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 43),
        (b"HTTP/1.1 200 OK\r\nCONTENT-LENGTH:12\r\nX: y\r\n\r\n123", 56),
    ],
)
def test_reply_length_counts_head_and_body(buffer: bytes, length: int | None) -> None:
    assert reply_length(buffer) == length

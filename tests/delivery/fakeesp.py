"""A provider on loopback that answers by script, and a ledger of what it took.

A real HTTP server on real sockets: what it does to a connection is done to a connection. Those
that know idempotency keys in life know them here: a mail whose key was taken is not taken again.
"""

import base64
import gzip
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

from tests.delivery.ledger import Ledger, messages_in

ADDRESS = "to@example.com"
SUCCESS: Mapping[str, tuple[int, Mapping[str, str], Any]] = {
    "postmark": (
        200,
        {},
        {"ErrorCode": 0, "Message": "OK", "MessageID": "esp-1", "To": ADDRESS},
    ),
    "sendgrid": (202, {"X-Message-Id": "esp-1"}, ""),
    "mailgun": (200, {}, {"id": "esp-1", "message": "Queued. Thank you."}),
    "brevo": (201, {}, {"messageId": "esp-1"}),
    "resend": (200, {}, {"id": "esp-1"}),
    "mailersend": (202, {"X-Message-Id": "esp-1", "Content-Type": "text/html"}, ""),
    "mailjet": (
        200,
        {},
        {"Messages": [{"Status": "success", "To": [{"Email": ADDRESS, "MessageID": "esp-1"}]}]},
    ),
    "sparkpost": (
        200,
        {},
        {
            "results": {
                "total_accepted_recipients": 1,
                "total_rejected_recipients": 0,
                "id": "esp-1",
            }
        },
    ),
    "postal": (
        200,
        {},
        {"status": "success", "data": {"messages": {ADDRESS: {"id": "esp-1", "token": "t"}}}},
    ),
    "ses": (200, {}, {"MessageId": "esp-1"}),
}


@dataclass
class Answer:
    """What to do with a request. `takes`: the mail goes into the ledger first, whatever is said."""

    status: int = 200
    body: Any = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    takes: bool = False
    but: frozenset[UUID] = frozenset()
    """Of many mails, those that are not taken."""
    seconds: float = 0.0
    """Before the answer."""
    judge: Callable[[bytes], "Answer"] | None = None
    """The answer that depends on what came, in place of this one."""
    do: Callable[["_Handler"], None] | None = None
    """Instead of an answer; the body has been read."""
    at_once: Callable[["_Handler"], None] | None = None
    """Instead of reading the body."""


def reset(handler: "_Handler") -> None:
    """End the connection with RST."""
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()


def read_half_and_reset(handler: "_Handler") -> None:
    handler.rfile.read(int(handler.headers["Content-Length"]) // 2)
    reset(handler)


def hang(seconds: float) -> Callable[["_Handler"], None]:
    """Say nothing; end the connection when the test is over or the time is."""
    return lambda handler: handler.server.over.wait(seconds)  # type: ignore[attr-defined]


def drip(text: bytes, pause: float) -> Callable[["_Handler"], None]:
    """A byte at a time."""

    def dripping(handler: "_Handler") -> None:
        for byte in text:
            if handler.server.over.is_set():  # type: ignore[attr-defined]
                return
            handler.wfile.write(bytes([byte]))
            time.sleep(pause)

    return dripping


def endless(handler: "_Handler") -> None:
    """A body without an end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while not handler.server.over.is_set():  # type: ignore[attr-defined]
        handler.wfile.write(b"x" * 65_536)


def gzip_bomb(handler: "_Handler") -> None:
    packed = gzip.compress(b"x" * 50_000_000)
    handler.wfile.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
        b"Content-Length: %d\r\n\r\n" % len(packed) + packed
    )


class FakeESP(ThreadingHTTPServer):
    """`script` is used up one answer per request; then `usual`, which takes everything."""

    daemon_threads = True

    def __init__(self, kind: str = "postmark", ledger: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        status, headers, body = SUCCESS[kind]
        self.usual = Answer(status, body, headers, takes=True)
        self.script: list[Answer] = []
        self.book = Ledger(ledger)
        self.requests: list[tuple[Mapping[str, str], bytes]] = []
        self.connections = 0
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._lock = threading.Lock()
        self._keys: set[str] = set()

    @property
    def ledger(self) -> Counter[UUID]:
        """How many times each message was taken."""
        return self.book.counts()

    @property
    def calls(self) -> list[Any]:
        """What was asked, decoded."""
        return [call_in(body) for _, body in self.requests]

    def next_answer(self) -> Answer:
        with self._lock:
            return self.script.pop(0) if self.script else self.usual

    def take(self, body: bytes, key: str = "", but: frozenset[UUID] = frozenset()) -> None:
        with self._lock:
            if key in self._keys:
                return
            for message_id in messages_in(mail_in(body)) - but:
                self.book.take(message_id, body, key)
            if key:
                self._keys.add(key)

    def forget_keys(self) -> None:
        """From here on a call under a key that was used is a call like the first."""
        with self._lock:
            self._keys.clear()

    def get_request(self) -> Any:
        self.connections += 1
        return super().get_request()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are cut off are what this server is for."""


def call_in(body: bytes) -> Any:
    """What a call says, in JSON or as a form."""
    try:
        return json.loads(body)
    except ValueError:
        return parse_qs(body.decode(), keep_blank_values=True, strict_parsing=True)


def _key(headers: Mapping[str, str], body: bytes) -> str:
    """Resend's is an HTTP header, Brevo's one of the mail; nobody else has any."""
    found = re.search(rb'"idempotencyKey": *"([^"]+)"', body)
    return found[1].decode() if found else headers.get("Idempotency-Key") or ""


def mail_in(body: bytes) -> bytes:
    """The mail of a call that has it in Base64, else the call."""
    try:
        raw = json.loads(body)["Content"]["Raw"]["Data"]
    except (ValueError, LookupError, TypeError):
        return body
    return base64.b64decode(raw)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeESP

    def do_POST(self) -> None:
        answer = self.server.next_answer()
        if answer.at_once is not None:
            self.server.requests.append((dict(self.headers), b""))
            answer.at_once(self)
            self.close_connection = True
            return
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True  # Whoever is cut off in the middle has asked for nothing.
            return
        self.server.requests.append((dict(self.headers), body))
        if answer.judge is not None:
            answer = answer.judge(body)
        if answer.takes:
            self.server.take(body, _key(self.headers, body), answer.but)
        if answer.seconds:
            self.server.over.wait(answer.seconds)
        if answer.do is not None:
            answer.do(self)
            self.close_connection = True
            return
        text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Quietly."""


@contextmanager
def fake_esp(kind: str = "postmark", ledger: Path | None = None) -> Iterator[FakeESP]:
    """A running one; at `ledger` it keeps its book, in a file without a name otherwise."""
    with FakeESP(kind, ledger) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            if ledger is not None:
                server.book.close()

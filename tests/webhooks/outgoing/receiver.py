"""Somebody else's service, on loopback: it verifies what comes with the reference library, and
answers as it is told."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

Answer = tuple[int, dict[str, str], bytes]


LOST = 0
"""As a status: it was taken, and the connection lost before that could be said."""


@dataclass
class Call:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """`answer` decides; what it took with 2xx stands in `taken`, how often by id."""

    secret: str = ""
    answer: Callable[[Call], Answer] = lambda _call: (204, {}, b"")
    seconds: float = 0.0
    drip: float = 0.0
    calls: list[Call] = field(default_factory=list)
    forged: list[Call] = field(default_factory=list)
    taken: Counter[str] = field(default_factory=Counter)
    bodies: dict[str, set[bytes]] = field(default_factory=dict)
    most_at_once: int = 0
    now: int = 0
    lock: Any = field(default_factory=threading.Lock)
    url: str = ""

    def take(self, call: Call) -> Answer:
        with self.lock:
            self.now += 1
            self.most_at_once = max(self.most_at_once, self.now)
            self.calls.append(call)
        try:
            time.sleep(self.seconds)
            if self.secret and not self._is_genuine(call):
                self.forged.append(call)
                return 401, {}, b"forged"
            status, headers, body = self.answer(call)
            with self.lock:
                self.bodies.setdefault(call.id, set()).add(call.body)
                self.taken[call.id] += 200 <= status < 300 or status == LOST
            return status, headers, body
        finally:
            with self.lock:
                self.now -= 1

    def _is_genuine(self, call: Call) -> bool:
        try:
            Webhook(self.secret).verify(call.body, call.headers)
        except WebhookVerificationError:
            return False
        return True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    receiver: Receiver

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that is killed is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        body = self.rfile.read(size)
        if len(body) < size:  # the caller was killed in the middle of it
            self.close_connection = True
            return
        receiver = self.server.receiver
        status, headers, said = receiver.take(Call(self.path, dict(self.headers), body))
        if status == LOST:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {"Content-Length": str(len(said)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        for byte in said if receiver.drip else ():
            self.wfile.write(bytes([byte]))
            time.sleep(receiver.drip)
        if not receiver.drip:
            self.wfile.write(said)

    def log_message(self, *args: Any) -> None:
        """Not on the terminal."""


@contextmanager
def receiving(**fields: Any) -> Iterator[Receiver]:
    """A receiver, while its server runs."""
    receiver = Receiver(**fields)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.receiver = receiver
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

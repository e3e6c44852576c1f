"""The real server on the database of the test, and a gateway before it that breaks things."""

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit, urlunsplit

from django.conf import settings
from django.db import connection

from emailauto.embedded.server import free_port

LOST = "lost"
"""The request is answered, and the answer never arrives."""
CUT = "cut"
"""The connection ends before the request has arrived."""

Fault = str | int | tuple[int, str]
"""`LOST`, `CUT`, an HTTP status, or a status and its `Retry-After`."""


@contextmanager
def serving(**environment: str) -> Iterator[str]:
    """The URL of emailauto in a process of its own. What it is sent it commits, so the test has
    to be a transactional one. `environment` goes before what the server has of the test's."""
    port = free_port()
    database = urlsplit(os.environ["DATABASE_URL"])._replace(
        path=f"/{connection.settings_dict['NAME']}"
    )
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "granian", "--interface", "asgi"),
            *("--host", "127.0.0.1", "--port", str(port), "--no-ws", "emailauto.asgi:application"),
            *("--loop", "uvloop", "--http", "1", "--workers-kill-timeout", "5"),
        ],
        env={
            **os.environ,
            "DATABASE_URL": urlunsplit(database),
            "REDIS_URL": settings.REDIS_URL,
            "CELERY_BROKER_URL": "memory://",
            **environment,
        },
    )
    try:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


class Gateway(ThreadingHTTPServer):
    """Does to the next requests what `faults` say, one each, and passes the others on. `passed`
    counts the requests that reached the server, `seen` all of them."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.faults: deque[Fault] = deque()
        self.seen = 0
        self.passed = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are what this is for."""


@contextmanager
def gateway(upstream: str) -> Iterator[Gateway]:
    """A gateway before the server at that URL."""
    with Gateway(upstream) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gateway

    def do_POST(self) -> None:
        self.server.seen += 1
        fault = self.server.faults.popleft() if self.server.faults else None
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if fault == CUT:
            self._hang_up()
        elif isinstance(fault, int):
            self._answer(fault, {}, b'{"code": "unavailable", "message": "Not now."}')
        elif isinstance(fault, tuple):
            status, wait = fault
            refusal = b'{"code": "unavailable", "message": "Not now."}'
            self._answer(status, {"Retry-After": wait}, refusal)
        else:
            self._pass_on(body, is_lost=fault == LOST)

    def _pass_on(self, body: bytes, *, is_lost: bool) -> None:
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=30)
        upstream.request("POST", self.path, body, dict(self.headers))
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        self.server.passed += 1
        if is_lost:
            self._hang_up()
        else:
            self._answer(answer.status, {"Content-Type": "application/json"}, content)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server has ended"
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError("the server does not answer")

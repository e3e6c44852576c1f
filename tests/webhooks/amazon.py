"""SNS itself, as far as we ever talk to it: certificates and confirmations, over TLS on loopback.

The names of its hosts lead here, and its certificate authority is trusted; nothing else differs.
"""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
from django.conf import settings

from tests.webhooks.signing import CERTIFICATES, certificate
from webhooks import sns

HOST = "sns.eu-west-1.amazonaws.com"
HOST_IN_CHINA = "sns.cn-north-1.amazonaws.com.cn"


class Amazon(ThreadingHTTPServer):
    """Remembers what it was asked; `answers` replaces what it says to a path."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.asked: list[str] = []
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.drip = 0.0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: Amazon

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        status, headers, body = self.server.answers.get(self.path) or _usual(self.path)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        for byte in body if self.server.drip else ():
            self.wfile.write(bytes([byte]))
            time.sleep(self.server.drip)
        if not self.server.drip:
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Not on the terminal."""


def _usual(path: str) -> tuple[int, dict[str, str], bytes]:
    paths = [urlsplit(url).path for url in CERTIFICATES]
    if path in paths:
        return 200, {}, certificate(paths.index(path))
    if path.startswith("/?Action=ConfirmSubscription"):
        return 200, {"Content-Type": "text/xml"}, b"<ConfirmSubscriptionResponse/>"
    return 403, {}, b"<Error/>"


@contextmanager
def amazon(monkeypatch: pytest.MonkeyPatch, directory: Path) -> Iterator[Amazon]:
    """The server, while it runs."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST, HOST_IN_CHINA).configure_cert(context)
    authority.cert_pem.write_to_path(directory / "authority.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(directory / "authority.pem"))
    server = Amazon(context)
    resolve = socket.getaddrinfo

    def resolve_here(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host in (HOST, HOST_IN_CHINA) and port == 443:
            host, port = "127.0.0.1", server.server_port
        return resolve(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_here)
    monkeypatch.setattr(settings, "OUTGOING_ALLOWED_HOSTS", ["127.0.0.1"])
    # What another test left hanging holds its places until its deadline.
    monkeypatch.setattr(sns, "_fetching", threading.Semaphore(2))
    sns._keys.clear()
    sns._absent.clear()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        sns._keys.clear()

"""One request, one answer: over real sockets and TLS, within its time, to that very address."""

import http.server
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.webhooks.outgoing.receiver import Receiver, receiving
from webhooks.exchange import Answer, exchange
from webhooks.guard import Denied, Unreachable

HOST = "consumer.example.com"


@pytest.fixture(autouse=True)
def _own_network(settings: Any) -> None:
    settings.OUTGOING_ALLOWED_HOSTS = ["127.0.0.0/8"]
    settings.OUTGOING_PROXY = ""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def call(url: str, *, seconds: float = 60, most_bytes: int = 1_000) -> Answer:
    headers = {"webhook-id": "1"}
    return exchange(
        "POST", url, seconds=seconds, most_bytes=most_bytes, body=b"{}", headers=headers
    )


@contextmanager
def speaking(script: Any) -> Iterator[str]:
    """A server that does with each connection what the script says."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer, suppress(OSError):
                script(peer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


class TLS:
    """A server under TLS on loopback; remembers by which name it was asked for."""

    def __init__(self, directory: Path, name: str) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(directory / "authority.pem")
        self.authorities = str(directory / "authority.pem")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        self.asked: list[str | None] = []
        context.sni_callback = lambda _socket, name, _context: self.asked.append(name)
        self.hosts: list[str] = []
        asked = self.hosts

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked.append(self.headers["Host"])
                self.send_response(200)
                self.send_header("Content-Length", "9")
                self.end_headers()
                self.wfile.write(b"under TLS")

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_port


@contextmanager
def tls(directory: Path, monkeypatch: pytest.MonkeyPatch, name: str = HOST) -> Iterator[TLS]:
    """The server, trusted, while it runs; `HOST` leads to it."""
    server = TLS(directory, name)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", server.authorities)
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))]
    resolve = socket.getaddrinfo

    def resolve_here(host: Any, *args: Any, **kwargs: Any) -> Any:
        return found if host == HOST else resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_here)
    thread = threading.Thread(target=server.server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.server.shutdown()
        thread.join()
        server.server.server_close()


def test_answer_comes_back_whole(receiver: Receiver) -> None:
    receiver.answer = lambda _call: (202, {"X-Said": "yes"}, b"thanks")
    answer = call(receiver.url)
    assert (answer.status, answer.headers["x-said"], answer.body, answer.is_whole) == (
        202,
        "yes",
        b"thanks",
        True,
    )
    assert receiver.calls[0].headers["Host"] == receiver.url.split("/")[2]
    assert receiver.calls[0].body == b"{}"


def test_redirect_is_an_answer_and_is_not_followed(receiver: Receiver) -> None:
    receiver.answer = lambda _call: (302, {"Location": "http://169.254.169.254/"}, b"")
    assert call(receiver.url).status == 302
    assert len(receiver.calls) == 1


def test_answer_that_is_too_large_is_cut(receiver: Receiver) -> None:
    receiver.answer = lambda _call: (200, {}, b"x" * 1_000_000)
    answer = call(receiver.url)
    assert (len(answer.body), answer.is_whole) == (1_000, False)


def test_body_that_drips_is_cut_at_the_deadline(receiver: Receiver) -> None:
    receiver.answer, receiver.drip = lambda _call: (200, {}, b"x" * 3_000), 0.1
    started = time.monotonic()
    answer = call(receiver.url, seconds=5)
    assert time.monotonic() - started < 60
    assert (answer.status, answer.is_whole) == (200, False)
    assert answer.body == b"x" * len(answer.body) != b""


@pytest.mark.parametrize(
    ("framing", "is_whole"),
    [
        ("Content-Length: 3", True),
        ("Content-Length: 9", False),
        ("Content-Length: 9, 9", False),
        ("Transfer-Encoding: gzip, chunked", False),
        ("X-Framing: none", True),
    ],
)
def test_body_is_whole_where_its_framing_says_so(framing: str, is_whole: bool) -> None:
    def answer_and_hang_up(peer: socket.socket) -> None:
        peer.recv(1_000)
        peer.sendall(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\nabc".encode())
        peer.shutdown(socket.SHUT_WR)
        peer.recv(1_000)

    with speaking(answer_and_hang_up) as place:
        answer = call(f"http://{place}/")
    assert (answer.body, answer.is_whole) == (b"abc", is_whole)


def drip_head(peer: socket.socket) -> None:
    peer.recv(1_000)
    for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Header: yes\r\n" * 100:
        peer.send(bytes([byte]))
        time.sleep(0.1)


def never_answer(peer: socket.socket) -> None:
    while peer.recv(1_000):
        pass


def continue_for_ever(peer: socket.socket) -> None:
    peer.recv(1_000)
    while True:
        peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.01)


@pytest.mark.parametrize("script", [drip_head, never_answer, continue_for_ever])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nothing_lasts_longer_than_the_deadline(script: Any, scheme: str) -> None:
    started = time.monotonic()
    with speaking(script) as host, pytest.raises(Unreachable) as raised:
        call(f"{scheme}://{host}/", seconds=0.5)
    assert time.monotonic() - started < 20
    # Whoever speaks no TLS where it is expected is found out before that.
    assert str(raised.value) == "timeout" or scheme == "https"


def test_slow_name_server_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    over, waited_for = threading.Event(), []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: waited_for.append(over.wait(60)))
    with pytest.raises(Unreachable, match="timeout"):
        call("https://consumer.example.com/", seconds=0.3)
    assert waited_for == []
    over.set()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 999999 no\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    ],
    ids=["nothing", "ssh", "no status", "odd status", "long header", "many headers"],
)
def test_what_is_no_answer_is_unreachable(said: bytes) -> None:
    def say(peer: socket.socket) -> None:
        peer.recv(1_000)
        peer.sendall(said)

    with speaking(say) as host, pytest.raises(Unreachable):
        call(f"http://{host}/", seconds=2)


def test_closed_port_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unreachable, match="no connection"):
        call(f"http://127.0.0.1:{port}/")


def test_tls_is_of_the_name_and_the_connection_of_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tls(tmp_path, monkeypatch) as server:
        answer = call(f"https://{HOST}/")
        assert (answer.body, answer.is_whole) == (b"under TLS", True)
        assert (server.asked, server.hosts) == ([HOST], [HOST])


def test_certificate_of_another_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tls(tmp_path, monkeypatch, "other.example.com") as server:
        with pytest.raises(Unreachable, match="certificate"):
            call(f"https://{HOST}/")
        assert server.hosts == []


def test_certificate_of_nobody_we_know_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tls(tmp_path, monkeypatch):
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        with pytest.raises(Unreachable, match="certificate"):
            call(f"https://{HOST}/")


def test_address_that_became_loopback_is_denied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.OUTGOING_ALLOWED_HOSTS = []
    with tls(tmp_path, monkeypatch) as server:
        with pytest.raises(Denied):
            call(f"https://{HOST}/")
        assert server.hosts == []


class Proxy:
    """An egress proxy that remembers what it was asked for, and leads all to one place."""

    def __init__(self, port: int = 0, status: bytes = b"200 Connection established") -> None:
        self.port, self.status = port, status
        self.asked: list[str] = []

    def __call__(self, peer: socket.socket) -> None:
        self.asked.append(peer.recv(1_000).decode())
        peer.sendall(b"HTTP/1.1 " + self.status + b"\r\n\r\n")
        if self.port:
            with socket.create_connection(("127.0.0.1", self.port)) as behind:
                back = threading.Thread(target=_pump, args=(behind, peer))
                back.start()
                _pump(peer, behind)
                back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(4_096):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)


def test_proxy_is_given_the_name_and_tls_reaches_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    with tls(tmp_path, monkeypatch) as server:
        proxy = Proxy(server.port)
        with speaking(proxy) as address:
            settings.OUTGOING_PROXY = f"http://user:pass%20word@{address}"
            assert call(f"https://{HOST}/").body == b"under TLS"
        assert proxy.asked[0].startswith(f"CONNECT {HOST}:443 HTTP/1.1\r\n")
        assert "Proxy-Authorization: Basic dXNlcjpwYXNzIHdvcmQ=\r\n" in proxy.asked[0]
        assert server.asked == [HOST]


def test_refusal_of_the_proxy_is_unreachable(settings: Any) -> None:
    with speaking(Proxy(status=b"407 no")) as address:
        settings.OUTGOING_PROXY = f"http://{address}"
        with pytest.raises(Unreachable, match="proxy refused"):
            call(f"https://{HOST}/")


def test_connection_to_a_proxy_that_talks_nonsense_is_closed(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[socket.socket] = []
    as_usual = socket.create_connection

    def remembered(*args: Any, **kwargs: Any) -> socket.socket:
        made.append(as_usual(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(socket, "create_connection", remembered)

    def say_nonsense(peer: socket.socket) -> None:
        peer.recv(1_000)
        peer.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

    with speaking(say_nonsense) as address:
        settings.OUTGOING_PROXY = f"http://{address}"
        with pytest.raises(Unreachable, match="no connection to the proxy"):
            call(f"https://{HOST}/")
    assert [each.fileno() for each in made] == [-1]


def test_proxy_is_not_asked_for_what_is_denied_or_listed(settings: Any, receiver: Receiver) -> None:
    proxy = Proxy()
    with speaking(proxy) as address:
        settings.OUTGOING_PROXY = f"http://{address}"
        with pytest.raises(Denied):
            call("https://169.254.169.254/")
        call(receiver.url)
    assert (proxy.asked, len(receiver.calls)) == ([], 1)

"""Replies of SMTP servers, byte by byte."""

import smtplib
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from delivery.backends.replies import OnTime


class Client(OnTime):
    """What it needs of smtplib's."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
        self.sock = None


@pytest.fixture
def pair() -> Iterator[tuple[Client, socket.socket]]:
    ours, theirs = socket.socketpair()
    client = Client(ours)
    yield client, theirs
    client.close()
    theirs.close()


def test_replies_end_where_they_end_however_they_come(pair: Any) -> None:
    client, server = pair
    server.sendall(b"250-one\r\n250-two\r\n250 three\r\n354 go")
    assert client.getreply() == (250, b"one\ntwo\nthree")
    server.sendall(b" on\r\n250\r\nwhat?\r\n")
    assert [client.getreply() for _ in range(3)] == [(354, b"go on"), (250, b""), (-1, b"?")]


def test_what_was_said_before_tls_is_not_heard_after(pair: Any) -> None:
    client, server = pair
    server.sendall(b"220 go ahead\r\n250 injected\r\n")
    assert client.getreply() == (220, b"go ahead")
    before, (client.sock, behind) = client.sock, socket.socketpair()
    with before, behind:
        behind.sendall(b"250 true\r\n")
        assert client.getreply() == (250, b"true")


@pytest.mark.parametrize("flood", [b"250" + b"x" * 70_000, b"250-x\r\n" * 70_000])
def test_reply_without_an_end_is_cut_off(pair: Any, flood: bytes) -> None:
    client, server = pair
    server.setblocking(False)
    sent = server.send(flood[:100_000])
    if sent < 70_000:
        pytest.skip("the buffers here are too small for the flood")
    server.setblocking(True)
    with pytest.raises(smtplib.SMTPServerDisconnected):
        client.getreply()
    assert client.sock is None


def test_server_that_says_nothing_is_left_when_the_time_is_over(pair: Any, settings: Any) -> None:
    settings.EMAIL_TIMEOUT = 0.05
    client, _ = pair
    started = time.monotonic()
    with pytest.raises(smtplib.SMTPServerDisconnected):
        client.getreply()
    assert time.monotonic() - started >= 0.05
    assert client.sock is None


def test_hang_up_is_no_reply(pair: Any) -> None:
    client, server = pair
    server.close()
    with pytest.raises(smtplib.SMTPServerDisconnected):
        client.getreply()

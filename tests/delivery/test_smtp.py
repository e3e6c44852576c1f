"""Handing over to an SMTP server: a real one on loopback, and one that breaks at every verb."""

import socket
import threading
from collections.abc import Iterator
from email import message_from_bytes
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope

from delivery.engine import drain
from delivery.models import Attempt, Message
from tests.factories import MessageFactory, ProviderFactory, SenderFactory

pytestmark = pytest.mark.django_db


class Inbox:
    """Keeps what arrives; answers RCPT and DATA as scripted."""

    def __init__(self) -> None:
        self.received: list[Envelope] = []
        self.rcpt = "250 OK"
        self.data = "250 OK"

    async def handle_RCPT(
        self, _server: Any, _session: Any, envelope: Envelope, address: str, _options: Any
    ) -> str:
        if self.rcpt.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.rcpt

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:
        if self.data.startswith("250"):
            self.received.append(envelope)
        return self.data


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    handler = Inbox()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    controller = Controller(handler, hostname="127.0.0.1", port=port)
    controller.start()
    handler.url = f"smtp://127.0.0.1:{port}"  # type: ignore[attr-defined]
    yield handler
    controller.stop()


def smtp_message(monkeypatch: pytest.MonkeyPatch, url: str, **fields: Any) -> Message:
    monkeypatch.setenv("TEST_SMTP_URL", url)
    provider = ProviderFactory(key="smtp", backend="smtp", secret_env="TEST_SMTP_URL")
    return MessageFactory(sender=SenderFactory(provider=provider), **fields)


def deliver() -> Message:
    drain("transactional", budget=5)
    return Message.objects.get()


def test_email_url_sends_through_that_server(inbox: Inbox, settings: Any) -> None:
    settings.EMAIL_URL = inbox.url
    MessageFactory(sender__provider=ProviderFactory(key="default", backend="configured"))
    assert deliver().state == "sent"
    (envelope,) = inbox.received
    mail = message_from_bytes(envelope.content)
    assert envelope.rcpt_tos == [Message.objects.get().email]
    assert mail["Subject"] == "Hello Ada"
    assert mail.get_content_type() == "multipart/alternative"
    assert str(Message.objects.get().pk) in mail["Message-ID"]


def test_connection_is_shared_by_the_mails_of_a_batch(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = smtp_message(monkeypatch, inbox.url)
    MessageFactory.create_batch(4, sender=first.sender)
    drain("transactional", budget=5)
    assert len(inbox.received) == 5
    assert set(Message.objects.values_list("state", flat=True)) == {"sent"}


@pytest.mark.parametrize(
    ("verb", "reply", "state", "reason"),
    [
        ("rcpt", "550 5.1.1 no such user", "failed", "refused"),
        ("rcpt", "450 4.2.0 greylisted", "retry", ""),
        ("data", "554 5.7.1 spam", "failed", "refused"),
        ("data", "452 4.3.1 full", "retry", ""),
        ("data", "421 4.3.2 closing", "retry", ""),
    ],
)
def test_reply_of_the_server_decides(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch, verb: str, reply: str, state: str, reason: str
) -> None:
    smtp_message(monkeypatch, inbox.url)
    setattr(inbox, verb, reply)
    message = deliver()
    assert (message.state, message.reason) == (state, reason)
    assert reply[:3] in message.detail
    assert Attempt.objects.get().detail == message.detail


def test_attempts_run_out_into_the_dead_letters(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    smtp_message(monkeypatch, inbox.url)
    inbox.rcpt = "451 4.3.0 try later"
    for _ in range(3):
        Message.objects.update(due_at=Message.objects.get().created_at)
        message = deliver()
    assert (message.state, message.reason, message.failures) == ("dead", "attempts_exhausted", 3)
    assert Attempt.objects.count() == 3


def test_server_that_is_away_uses_up_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    smtp_message(monkeypatch, "smtp://127.0.0.1:1")
    for _ in range(5):
        Message.objects.update(due_at=Message.objects.get().created_at)
        message = deliver()
    assert (message.state, message.failures, message.attempts) == ("retry", 0, 5)


def test_missing_secret_is_told_and_uses_up_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    smtp_message(monkeypatch, "")
    message = deliver()
    assert (message.state, message.failures) == ("retry", 0)
    assert "TEST_SMTP_URL" in message.detail


class Breaking:
    """A server that plays a dialogue up to a verb and then drops the connection."""

    def __init__(self, drop_at: str) -> None:
        self.drop_at = drop_at
        self.bodies: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"smtp://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer, peer.makefile("rwb") as stream:
                self._talk(stream)

    def _talk(self, stream: Any) -> None:
        def say(line: str) -> None:
            stream.write(line.encode() + b"\r\n")
            stream.flush()

        say("220 breaking")
        while line := stream.readline():
            verb = line[:4].upper().decode().strip()
            if verb == self.drop_at:
                return
            if verb == "DATA":
                say("354 go on")
                body = b""
                while not body.endswith(b"\r\n.\r\n"):
                    body += stream.readline()
                self.bodies.append(body)
                if self.drop_at == "dot":
                    return
            say("221 bye" if verb == "QUIT" else "250 OK")
            if verb == "QUIT":
                return

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize(
    ("drop_at", "state", "bodies"),
    [
        ("EHLO", "retry", 0),
        ("MAIL", "retry", 0),
        ("RCPT", "retry", 0),
        ("DATA", "retry", 0),
        ("dot", "unknown", 1),
        ("QUIT", "sent", 1),
    ],
)
def test_where_the_connection_breaks_decides(
    monkeypatch: pytest.MonkeyPatch, drop_at: str, state: str, bodies: int
) -> None:
    server = Breaking(drop_at)
    smtp_message(monkeypatch, server.url)
    assert deliver().state == state
    # Unknown is not due again, whatever time passes.
    if state == "unknown":
        assert deliver().state == "unknown"
    assert len(server.bodies) == bodies
    server.close()

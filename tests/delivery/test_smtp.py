"""Handing over to an SMTP server: a real one on loopback, and one that breaks at every verb."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from email import message_from_bytes
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope
from django.db.models.functions import Now

from common.addresses import address_hash
from contacts.models import Contact
from delivery.connections import pool
from delivery.engine import drain
from delivery.models import Attempt, Bounce, Circuit, Message
from delivery.services import replay_messages, try_again
from suppression.models import Suppression
from tests.factories import MessageFactory, ProviderFactory, SenderFactory, TemplateFactory
from webhooks.services import drain as drain_feedback

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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def _no_kept_connections() -> Iterator[None]:
    yield
    pool.close()


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    handler = Inbox()
    controller = Controller(handler, hostname="127.0.0.1", port=free_port())
    controller.start()
    handler.url = f"smtp://127.0.0.1:{controller.port}"  # type: ignore[attr-defined]
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


class Scripted:
    """A server that speaks by the book but for what it is told: `replies` instead of `250` or
    `354`, by verb (`dot` for the text's), and `drop_at` a verb, where it hangs up."""

    def __init__(
        self,
        *,
        drop_at: str = "",
        pipelining: bool = False,
        replies: dict[str, str] | None = None,
        greeting: str = "220 scripted",
        pause: float = 0.0,
    ) -> None:
        self.pause = pause
        self.greeting = greeting
        self.verbs: list[str] = []
        self.drop_at = drop_at
        self.pipelining = pipelining
        self.replies = replies or {}
        self.bodies: list[bytes] = []
        self.sessions = 0
        self.largest_read = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"smtp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._peers: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def hang_up(self, farewell: bytes = b"") -> None:
        """End every session, as servers do with idle ones."""
        while self._peers:
            peer = self._peers.pop()
            with contextlib.suppress(OSError):
                if farewell:
                    peer.sendall(farewell)
                peer.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.sessions += 1
            self._peers.append(peer)
            threading.Thread(target=self._session, args=[peer], daemon=True).start()

    def _session(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), peer, peer.makefile("rwb") as stream:
            self._talk(stream)

    def _talk(self, stream: Any) -> None:
        def say(text: str) -> None:
            for line in text.split("\r\n"):
                stream.write(line.encode() + b"\r\n")
                stream.flush()
                time.sleep(self.pause)

        say(self.greeting)
        while line := stream.readline():
            verb = line[:4].upper().decode().strip()
            self.verbs.append(verb)
            if verb == self.drop_at:
                return
            if verb == "EHLO" and self.pipelining:
                say("250-scripted")
                say("250 PIPELINING")
                continue
            usual = {"DATA": "354 go on", "QUIT": "221 bye"}.get(verb, "250 OK")
            reply = self.replies.get(verb, usual)
            say(reply)
            if verb == "DATA" and reply.startswith("354"):
                body = b""
                while not body.endswith(b"\r\n.\r\n") and body != b".\r\n":
                    if not (line := stream.readline()):
                        return
                    body += line
                self.bodies.append(body)
                if self.drop_at == "dot":
                    return
                say(self.replies.get("dot", "250 OK"))
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
@pytest.mark.parametrize("pipelining", [False, True])
def test_where_the_connection_breaks_decides(
    monkeypatch: pytest.MonkeyPatch, drop_at: str, state: str, bodies: int, pipelining: bool
) -> None:
    server = Scripted(drop_at=drop_at, pipelining=pipelining)
    smtp_message(monkeypatch, server.url)
    assert deliver().state == state
    # Unknown is not due again, whatever time passes.
    if state == "unknown":
        assert deliver().state == "unknown"
    assert len(server.bodies) == bodies
    server.close()


@pytest.mark.parametrize("pipelining", [False, True])
@pytest.mark.parametrize(
    ("verb", "reply", "state", "bodies"),
    [
        ("MAIL", "451 4.3.0 later", "retry", 0),
        ("MAIL", "550 5.7.1 not you", "retry", 0),
        ("RCPT", "550 5.1.1 no such user", "failed", 0),
        ("RCPT", "450 4.2.0 greylisted", "retry", 0),
        ("DATA", "503 5.5.1 no valid recipients", "failed", 0),
        ("dot", "554 5.7.1 spam", "failed", 1),
        ("dot", "452 4.3.1 full", "retry", 1),
        # Not an answer to a text: what became of it nobody knows.
        ("dot", "354 go on", "unknown", 1),
        ("dot", "what?", "unknown", 1),
    ],
)
def test_reply_to_each_command_decides(
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    reply: str,
    state: str,
    bodies: int,
    pipelining: bool,
) -> None:
    server = Scripted(pipelining=pipelining, replies={verb: reply})
    smtp_message(monkeypatch, server.url)
    assert deliver().state == state
    # With pipelining a server may ask for the text all the same; it gets none.
    assert [body for body in server.bodies if body != b".\r\n"] == server.bodies[-bodies:] * bodies
    if not pipelining:
        assert len(server.bodies) == bodies


@pytest.mark.parametrize("pipelining", [False, True])
def test_connection_serves_the_next_mail_after_a_refusal(
    monkeypatch: pytest.MonkeyPatch, pipelining: bool
) -> None:
    server = Scripted(pipelining=pipelining, replies={"RCPT": "550 5.1.1 no such user"})
    first = smtp_message(monkeypatch, server.url)
    drain("transactional", budget=5)
    server.replies = {}
    MessageFactory.create_batch(3, sender=first.sender)
    drain("transactional", budget=5)
    assert list(Message.objects.order_by("pk").values_list("state", flat=True)) == [
        "failed",
        *["sent"] * 3,
    ]
    assert server.sessions == 1


@pytest.mark.parametrize("farewell", [b"", b"421 4.4.2 idle too long\r\n"])
def test_kept_connection_that_died_meanwhile_is_replaced_unnoticed(
    monkeypatch: pytest.MonkeyPatch, farewell: bytes
) -> None:
    server = Scripted()
    first = smtp_message(monkeypatch, server.url)
    drain("transactional", budget=5)
    server.hang_up(farewell)
    MessageFactory(sender=first.sender)
    drain("transactional", budget=5)
    assert list(Message.objects.values_list("state", "attempts")) == [("sent", 1), ("sent", 1)]
    assert (server.sessions, len(server.bodies)) == (2, 2)


def test_kept_connection_that_dies_after_the_text_is_a_doubt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Scripted()
    first = smtp_message(monkeypatch, server.url)
    drain("transactional", budget=5)
    server.drop_at = "dot"
    MessageFactory(sender=first.sender)
    drain("transactional", budget=5)
    assert sorted(Message.objects.values_list("state", flat=True)) == ["sent", "unknown"]
    assert (server.sessions, len(server.bodies)) == (1, 2)


def test_lines_that_begin_with_a_dot_arrive(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    template = TemplateFactory(
        version__html="<p>a</p>\n.\n..\n.hidden", version__text="a\n.\n..\n.hidden"
    )
    smtp_message(monkeypatch, inbox.url, template_version=template.published)
    assert deliver().state == "sent"
    mail = message_from_bytes(inbox.received[0].content)
    text = mail.get_payload(0).get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert [line for line in text.splitlines() if line.startswith(".")] == [".", "..", ".hidden"]


@pytest.mark.parametrize("greeting", ["421 4.3.2 too busy", "554 5.3.2 no mail here", "what?"])
def test_e25_greeting_that_turns_us_away_is_no_fault_of_the_message(
    monkeypatch: pytest.MonkeyPatch, greeting: str
) -> None:
    server = Scripted(greeting=greeting)
    smtp_message(monkeypatch, server.url)
    message = deliver()
    assert (message.state, message.failures) == ("retry", 0)
    assert server.bodies == []


def test_e28_tls_that_is_not_offered_is_not_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Scripted()
    smtp_message(monkeypatch, server.url.replace("smtp:", "smtp+tls:"))
    assert deliver().state == "retry"
    assert "MAIL" not in server.verbs


def test_e28_certificate_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    handler = Inbox()
    controller = Controller(
        handler, hostname="127.0.0.1", port=free_port(), tls_context=context, require_starttls=True
    )
    controller.start()
    try:
        smtp_message(monkeypatch, f"smtp+tls://127.0.0.1:{controller.port}")
        assert deliver().state == "retry"
    finally:
        controller.stop()
    assert handler.received == []
    assert "SSL" in Message.objects.get().detail


@pytest.mark.parametrize("reply", ["421 4.3.2 closing", "550 5.7.1 not you"])
def test_refused_greeting_leaves_no_half_open_connection_behind(
    monkeypatch: pytest.MonkeyPatch, reply: str
) -> None:
    server = Scripted(replies={"EHLO": reply, "HELO": reply})
    first = smtp_message(monkeypatch, server.url)
    drain("transactional", budget=5)
    Circuit.objects.all().delete()
    MessageFactory.create_batch(3, sender=first.sender)
    Message.objects.update(due_at=Now())
    drain("transactional", budget=5)
    assert set(Message.objects.values_list("state", flat=True)) <= {"retry", "queued"}
    assert server.bodies == []


def test_server_that_wants_a_login_fails_no_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Scripted(replies={"MAIL": "530 5.7.0 Authentication required"})
    first = smtp_message(monkeypatch, server.url)
    MessageFactory.create_batch(10, sender=first.sender)
    drain("transactional", budget=5)
    assert set(Message.objects.values_list("state", "failures")) == {("retry", 0), ("queued", 0)}
    assert server.verbs.count("MAIL") == 1


@pytest.mark.parametrize(
    ("rcpt", "data"),
    [
        ("554 5.7.1 Relay access denied", "250 OK"),
        ("250 OK", "554 Sending suspended for this account"),
        ("250 OK", "550 Maximum credits exceeded"),
    ],
)
def test_server_that_refuses_everybody_is_left_alone_before_the_backlog_has_failed(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch, rcpt: str, data: str
) -> None:
    inbox.rcpt, inbox.data = rcpt, data
    first = smtp_message(monkeypatch, inbox.url)  # type: ignore[attr-defined]
    MessageFactory.create_batch(99, sender=first.sender)
    drain("transactional", budget=20)
    assert Message.objects.filter(state="failed").count() <= 50
    assert Message.objects.filter(state="queued").count() >= 50
    assert Circuit.objects.get().open_until is not None


def test_reply_that_drips_ends_by_the_clock(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.EMAIL_TIMEOUT = 1
    endless = "\r\n".join(f"250-extension-{n}" for n in range(40))
    server = Scripted(replies={"EHLO": endless}, pause=0.1)
    smtp_message(monkeypatch, server.url)
    assert deliver().state == "retry"
    assert "EHLO" in server.verbs


def test_hard_bounce_in_the_hand_over_suppresses_the_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Scripted(replies={"RCPT": "550 5.1.1 no such user"})
    first = smtp_message(monkeypatch, server.url)
    drain("transactional", budget=5)
    drain_feedback(budget=5)
    server.replies = {}
    second = MessageFactory(sender=first.sender, contact=first.contact)
    drain("transactional", budget=5)
    second.refresh_from_db()
    assert (second.state, second.reason) == ("skipped", "suppressed")
    assert server.bodies == []


def test_auto_reply_in_the_hand_over_is_no_bounce(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Scripted(replies={"RCPT": "550 I am out of office, this is an automatic reply"})
    smtp_message(monkeypatch, server.url)
    drain("transactional", budget=5)
    assert not Bounce.objects.exists()


@pytest.mark.parametrize("pipelining", [False, True])
@pytest.mark.parametrize(
    "reply",
    [
        "525 5.7.13 User account disabled",
        "550 5.2.1 The email account shop@example.com is disabled",
        "550 5.1.0 Sender rejected: account is inactive",
        "550 5.1.1 user unknown",
        "553 user unknown, authenticate first",
        "553 5.1.3 invalid sender",
        "550 5.4.5 Daily user sending quota exceeded",
        "550 account suspended for abuse",
        "554 5.7.1 account deactivated",
        "450 4.2.1 mailbox disabled",
    ],
)
def test_refused_mail_from_says_nothing_of_the_recipients(
    monkeypatch: pytest.MonkeyPatch, reply: str, pipelining: bool
) -> None:
    server = Scripted(pipelining=pipelining, replies={"MAIL": reply})
    first = smtp_message(monkeypatch, server.url)
    MessageFactory.create_batch(6, sender=first.sender)
    drain("transactional", budget=5)
    drain_feedback(budget=1)
    assert not Suppression.objects.exists()
    assert not Bounce.objects.exists()
    assert set(Message.objects.values_list("state", flat=True)) <= {"retry", "held", "queued"}
    assert set(Message.objects.values_list("failures", flat=True)) == {0}
    # It is not asked again for each of them.
    assert server.verbs.count("MAIL") == 1
    # They leave once the account is put right.
    server.replies = {}
    try_again(first.sender.provider)
    Message.objects.filter(state__in=["retry", "queued"]).update(due_at=Now())
    drain("transactional", budget=5)
    assert set(Message.objects.values_list("state", flat=True)) == {"sent"}


def test_answer_to_data_condemns_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Scripted(replies={"DATA": "550 5.1.1 user unknown"})
    smtp_message(monkeypatch, server.url)
    assert deliver().state == "failed"
    drain_feedback(budget=1)
    assert not Suppression.objects.exists()


def test_answer_says_which_address_it_was_about(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Scripted(replies={"RCPT": "550 5.1.1 no such user"})
    message = smtp_message(monkeypatch, server.url)
    refused_address = message.contact.email_normalized
    deliver()
    bounce = Bounce.objects.get()
    assert (bounce.email_normalized, bounce.email) == (refused_address, message.contact.email)
    assert not bounce.is_applied
    drain_feedback(budget=1)
    bounce.refresh_from_db()
    assert bounce.is_applied
    # The same answer, about the new address: it has not been acted on.
    Contact.objects.update(email="new@example.com", email_normalized="new@example.com")
    replay_messages([message.pk])
    deliver()
    again = Bounce.objects.get()
    assert again.email_normalized == "new@example.com"
    assert (again.at, again.is_applied) == (bounce.at, False)
    assert again.last_at is not None
    # What comes back later is believed about either, and about nobody else.
    digests = Attempt.objects.order_by("number").values_list("address_hash", flat=True)
    expected = [address_hash(refused_address), address_hash("new@example.com")]
    assert [bytes(digest or b"") for digest in digests] == expected


def test_mail_put_off_again_is_counted_and_not_acted_on_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Scripted(replies={"RCPT": "450 4.7.28 too many mails"})
    smtp_message(monkeypatch, server.url)
    deliver()
    drain_feedback(budget=1)
    Message.objects.update(due_at=Now())
    deliver()
    bounce = Bounce.objects.get()
    assert bounce.is_applied
    assert bounce.last_at is not None
    assert bounce.last_at > bounce.at

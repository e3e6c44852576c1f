"""An SMTP backend that knows at which point of the dialogue a fault struck.

Connecting, STARTTLS and AUTH are smtplib's. The transaction is our own: it writes bytes that are
made already, in two round trips where the server offers PIPELINING (RFC 2920).
"""

import contextlib
import smtplib
import time
from collections.abc import Sequence

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.smtp import EmailBackend

from delivery.backends.http import watchdog
from delivery.outbound import OutboundEmail
from delivery.verdicts import HandoverError, Phase, of_connection, of_smtp_fault, of_smtp_reply

_EXPECTED = ((Phase.MAIL, 2), (Phase.RCPT, 2), (Phase.DATA, 3))
_CLOSING = 421


class _Refused(Exception):
    """The server's negative answer, 4xx or 5xx, to a command or to the text."""

    def __init__(self, code: int, text: bytes, phase: Phase) -> None:
        super().__init__(code)
        self.code, self.text, self.phase = code, text, phase


class _Transaction:
    """One mail over one connection."""

    begun = False
    """The server has accepted the first command."""
    in_doubt = False
    """The text is on its way and its answer has not been read."""

    def __init__(self, smtp: smtplib.SMTP, email: OutboundEmail) -> None:
        self._smtp = smtp
        self._email = email

    def run(self) -> None:
        """Raises `_Refused`, or what smtplib and the socket raise."""
        sender, recipient = self._email.envelope
        commands = [f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>", "DATA"]
        if self._smtp.has_extn("pipelining"):
            self._pipeline(commands)
        else:
            self._ask(commands)
        self._send_text()

    def _pipeline(self, commands: Sequence[str]) -> None:
        self._smtp.send("\r\n".join((*commands, "")))
        replies = [self._smtp.getreply() for _ in commands]
        mail, rcpt, data = (code // 100 for code, _ in replies)
        if data == 3 and (mail, rcpt) != (2, 2):
            # It waits for a text although it has nobody to give it to (RFC 2920 §3.1).
            self._smtp.send(".\r\n")
            self._smtp.getreply()
        for reply, (phase, expected) in zip(replies, _EXPECTED, strict=True):
            _expect(reply, expected, phase)
            self.begun = True

    def _ask(self, commands: Sequence[str]) -> None:
        for command, (phase, expected) in zip(commands, _EXPECTED, strict=True):
            self._smtp.send(f"{command}\r\n")
            _expect(self._smtp.getreply(), expected, phase)
            self.begun = True

    def _send_text(self) -> None:
        text = self._email.wire.replace(b"\r\n.", b"\r\n..")
        self.in_doubt = True
        self._smtp.send(text + b".\r\n")
        reply = self._smtp.getreply()
        self.in_doubt = reply[0] // 100 not in (2, 4, 5)
        _expect(reply, 2, Phase.TEXT)


def _expect(reply: tuple[int, bytes], expected: int, phase: Phase) -> None:
    code, text = reply
    if code // 100 in (4, 5):
        raise _Refused(code, text, phase)
    if code // 100 != expected:
        raise smtplib.SMTPException("an answer out of turn")


class _OnTime:
    """Every reply has to be there in time, however slowly it drips."""

    def getreply(self) -> tuple[int, bytes]:
        watchdog.watch(self, time.monotonic() + settings.EMAIL_TIMEOUT)
        try:
            return super().getreply()  # type: ignore[misc, no-any-return]
        finally:
            watchdog.forget(self)


class _SMTP(_OnTime, smtplib.SMTP):
    pass


class _SMTPS(_OnTime, smtplib.SMTP_SSL):
    pass


class SMTPBackend(EmailBackend):
    """Raises `HandoverError` with a verdict for a mail that is not accepted.

    One mail per call: the caller journals each hand-over. A connection from an earlier call that
    turns out to be dead is replaced once, as long as the server cannot have taken the mail; one
    that a fault left in an unknown state is dropped.
    """

    _has_served = False

    @property
    def connection_class(self) -> type[smtplib.SMTP]:
        return _SMTPS if self.use_ssl else _SMTP

    def open(self) -> bool | None:
        """As Django's, and greet: what the server offers is known from then on."""
        is_new: bool | None = super().open()
        if is_new:
            self._has_served = False
            try:
                self._smtp.ehlo_or_helo_if_needed()
            except BaseException:
                self._drop()
                raise
        return is_new

    @property
    def _smtp(self) -> smtplib.SMTP:
        assert self.connection is not None  # it is open
        return self.connection

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        if len(email_messages) != 1:
            raise ValueError("one message per call: each hand-over has its own verdict")
        (email,) = email_messages
        if not isinstance(email, OutboundEmail):
            raise TypeError("only for mail of the delivery engine")
        self._hand_over(email)
        return 1

    def _hand_over(self, email: OutboundEmail) -> None:
        try:
            self.open()
        except (smtplib.SMTPException, OSError) as error:
            raise HandoverError(of_connection(error)) from error
        may_be_stale, self._has_served = self._has_served, True
        transaction = _Transaction(self._smtp, email)
        try:
            transaction.run()
        except _Refused as error:
            self._reset(error)
            if may_be_stale and error.code == _CLOSING and not transaction.begun:
                self._hand_over(email)
                return
            verdict = of_smtp_reply(error.code, error.text, error.phase)
            raise HandoverError(verdict) from error
        except (smtplib.SMTPException, OSError) as error:
            self._drop()
            if may_be_stale and not transaction.in_doubt:
                self._hand_over(email)
                return
            verdict = of_smtp_fault(error, in_doubt=transaction.in_doubt)
            raise HandoverError(verdict) from error

    def _reset(self, refusal: _Refused) -> None:
        """Make the connection ready for the next mail, or drop it."""
        if refusal.code != _CLOSING:
            with contextlib.suppress(smtplib.SMTPException, OSError):
                code, _ = self._smtp.rset()
                if code // 100 == 2:
                    return
        self._drop()

    def _drop(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

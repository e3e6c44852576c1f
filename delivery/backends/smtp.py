"""An SMTP backend that knows at which point of the dialogue a fault struck.

Connecting, STARTTLS and AUTH are smtplib's. The transactions are our own: they write bytes that are
made already, and where the server offers PIPELINING (RFC 2920) a mail costs one round trip:

    text of mail 1, its final dot, MAIL 2, RCPT 2, DATA   →
                                                          ←   250, 250, 250, 354
    text of mail 2, its final dot, MAIL 3, RCPT 3, DATA   →

Mails and addresses are ASCII throughout (content is encoded, domains are punycode), so 8BITMIME and
SMTPUTF8 make no difference and are not asked for.
"""

import smtplib
from collections.abc import Sequence

from django.core.mail.backends.smtp import EmailBackend

from delivery.backends.replies import OnTime
from delivery.outbound import OutboundEmail
from delivery.verdicts import (
    Outcome,
    Phase,
    Verdict,
    of_connection,
    of_smtp_fault,
    of_smtp_reply,
)

_EXPECTED = ((Phase.MAIL, 2), (Phase.RCPT, 2), (Phase.DATA, 3))
_CLOSING = 421

Reply = tuple[int, bytes]


class _Refused(Exception):
    """The server's negative answer, 4xx or 5xx, to a command or to the text."""

    def __init__(self, reply: Reply, phase: Phase) -> None:
        super().__init__(reply[0])
        self.reply, self.phase = reply, phase

    @property
    def ends_session(self) -> bool:
        return self.reply[0] == _CLOSING

    @property
    def is_stale(self) -> bool:
        """The first thing that the server has to say is goodbye."""
        return self.ends_session and self.phase is Phase.MAIL

    @property
    def verdict(self) -> Verdict:
        return of_smtp_reply(*self.reply, self.phase)


class _SMTP(OnTime, smtplib.SMTP):
    pass


class _SMTPS(OnTime, smtplib.SMTP_SSL):
    pass


class SMTPBackend(EmailBackend):
    """A `delivery.dialogue.Dialogue` with an SMTP server.

    A connection from an earlier mail that turns out to be dead is replaced once, as long as the
    server cannot have taken the mail; one that a fault left in an unknown state is dropped.
    """

    _has_served = False
    """Another mail has been announced on this connection before, so it may have died of age."""
    _announced: OutboundEmail | None = None
    """The mail whose announcement is written."""
    _has_to_reset = False
    """A refused announcement stands between this connection and the next one."""

    @property
    def connection_class(self) -> type[smtplib.SMTP]:
        return _SMTPS if self.use_ssl else _SMTP

    def open(self) -> bool | None:
        """As Django's, and greet: what the server offers is known from then on."""
        is_new: bool | None = super().open()
        if is_new:
            self._has_served = self._has_to_reset = False
            self._announced = None
            try:
                self._smtp.ehlo_or_helo_if_needed()
            except BaseException:
                self._drop()
                raise
        return is_new

    def announce(self, email: OutboundEmail) -> Verdict | None:
        """See `Dialogue`; for a connection that could not be made as well."""
        try:
            self.open()
        except (smtplib.SMTPException, OSError) as error:
            return of_connection(error)
        may_be_stale, self._has_served = self._has_served, True
        try:
            if self._pipelines:
                self._announce_at_once(email)
            else:
                self._announce_step_by_step(email)
        except _Refused as refused:
            self._announced = None
            self._has_to_reset = True
            if refused.ends_session:
                self._drop()
            return self.announce(email) if may_be_stale and refused.is_stale else refused.verdict
        except (smtplib.SMTPException, OSError) as error:
            self._drop()
            return self.announce(email) if may_be_stale else of_smtp_fault(error, in_doubt=False)
        return None

    def deliver(self, upcoming: OutboundEmail | None) -> Verdict:
        """See `Dialogue`. Without PIPELINING `upcoming` is left for `announce`."""
        assert self._announced is not None  # its text is waited for
        if self._smtp.has_unread:
            # An answer to a text that is not written yet: nobody knows what it would be taken for.
            self._drop()
            return of_smtp_fault(_out_of_turn(), in_doubt=False)
        text, self._announced = self._announced.wire, None
        # In doubt from the text's first byte until an answer to it has been read.
        try:
            parts = [text.replace(b"\r\n.", b"\r\n.."), b".\r\n"]
            if upcoming is not None and self._pipelines:
                parts.append(_group(upcoming))
                self._announced = upcoming
            self._smtp.send(b"".join(parts))
            _expect(self._smtp.getreply(), 2, Phase.TEXT)
        except _Refused as refused:
            if refused.ends_session:
                self._drop()
            return refused.verdict
        except (smtplib.SMTPException, OSError) as error:
            self._drop()
            return of_smtp_fault(error, in_doubt=True)
        return Verdict(Outcome.ACCEPTED)

    def withdraw(self) -> None:
        """See `Dialogue`. A server that waits for a text would take an empty one for a mail, so
        the connection is dropped."""
        if self._announced is not None:
            self._drop()

    @property
    def _smtp(self) -> _SMTP | _SMTPS:
        assert isinstance(self.connection, _SMTP | _SMTPS)  # it is open
        return self.connection

    @property
    def _pipelines(self) -> bool:
        return self._smtp.has_extn("pipelining")

    def _announce_at_once(self, email: OutboundEmail) -> None:
        has_to_reset, self._has_to_reset = self._has_to_reset, False
        if self._announced is not email:
            if self._smtp.has_unread:
                raise _out_of_turn()
            self._smtp.send((b"RSET\r\n" if has_to_reset else b"") + _group(email))
            self._announced = email
        if has_to_reset:
            _was_reset(self._smtp.getreply())
        replies: list[Reply] = []
        while len(replies) < len(_EXPECTED) and not _is_farewell(replies):
            replies.append(self._smtp.getreply())
        classes = [code // 100 for code, _ in replies]
        if _is_waiting_for_nobody(classes):
            self._smtp.send(b".\r\n")
            self._smtp.getreply()
        elif classes[2:] == [3] and classes[:2] != [2, 2]:
            # It waits, and perhaps for somebody's text: to them an empty one would be a mail.
            self._drop()
        for reply, (phase, expected) in zip(replies, _EXPECTED, strict=False):
            _expect(reply, expected, phase)

    def _announce_step_by_step(self, email: OutboundEmail) -> None:
        if self._has_to_reset:
            self._has_to_reset = False
            _was_reset(self._smtp.rset())
        self._announced = email
        for command, (phase, expected) in zip(_commands(email), _EXPECTED, strict=True):
            self._smtp.send(command)
            _expect(self._smtp.getreply(), expected, phase)

    def _drop(self) -> None:
        self._announced = None
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()


def _commands(email: OutboundEmail) -> tuple[bytes, ...]:
    sender, recipient = email.envelope
    return (
        f"MAIL FROM:<{sender}>\r\n".encode("ascii"),
        f"RCPT TO:<{recipient}>\r\n".encode("ascii"),
        b"DATA\r\n",
    )


def _group(email: OutboundEmail) -> bytes:
    return b"".join(_commands(email))


def _is_farewell(replies: Sequence[Reply]) -> bool:
    """Nothing comes after the last of these."""
    return bool(replies) and replies[-1][0] == _CLOSING


def _is_waiting_for_nobody(classes: Sequence[int]) -> bool:
    """The server waits for a text although it has nobody to give it to (RFC 2920 §3.1)."""
    return classes[2:] == [3] and classes[1] in (4, 5)


def _was_reset(reply: Reply) -> None:
    if reply[0] // 100 != 2:
        raise smtplib.SMTPException("cannot be reset")


def _expect(reply: Reply, expected: int, phase: Phase) -> None:
    answered = reply[0] // 100
    if answered in (4, 5):
        raise _Refused(reply, phase)
    if answered != expected:
        raise _out_of_turn()


def _out_of_turn() -> smtplib.SMTPException:
    return smtplib.SMTPException("an answer out of turn")

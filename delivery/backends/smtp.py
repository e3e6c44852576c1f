"""Django's SMTP backend, knowing at which point of the dialogue a fault struck."""

import smtplib
from collections.abc import Sequence

from django.core.mail import EmailMessage
from django.core.mail.backends.smtp import EmailBackend

from delivery.verdicts import HandoverError, of_smtp


class _StageMixin:
    """Remembers whether the text of the current message was on its way."""

    body_written = False

    def mail(self, *args: object, **kwargs: object) -> tuple[int, bytes]:
        self.body_written = False
        return super().mail(*args, **kwargs)  # type: ignore[misc, no-any-return]

    def send(self, s: object) -> None:
        # smtplib.data() sends the command as text and the message as bytes, in one call.
        if isinstance(s, bytes | bytearray):
            self.body_written = True
        super().send(s)  # type: ignore[misc]


class _SMTP(_StageMixin, smtplib.SMTP):
    pass


class _SMTPS(_StageMixin, smtplib.SMTP_SSL):
    pass


class SMTPBackend(EmailBackend):
    """Raises `HandoverError` with a verdict for every mail that is not accepted.

    One mail per call: the caller journals each hand-over. A connection that a fault left in an
    unknown state is dropped, so the next mail starts on a fresh one.
    """

    @property
    def connection_class(self) -> type[smtplib.SMTP]:
        return _SMTPS if self.use_ssl else _SMTP

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        if len(email_messages) != 1:
            raise ValueError("one message per call: each hand-over has its own verdict")
        try:
            return super().send_messages(email_messages) or 0
        except (smtplib.SMTPException, OSError) as error:
            written = bool(getattr(self.connection, "body_written", False))
            self._drop()
            raise HandoverError(of_smtp(error, body_written=written)) from error

    def _drop(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

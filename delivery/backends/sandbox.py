"""A Django e-mail backend that delivers into the sandbox inbox."""

from collections.abc import Sequence
from typing import Any

from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.db import connection

from delivery.models import SandboxMail
from delivery.outbound import OutboundEmail
from delivery.verdicts import Outcome, Verdict

# The share lock makes recovery wait for this statement, and whatever recovery has taken away is
# not delivered any more. That is what lets the sandbox prove what it did *not* take.
_DELIVER = """
    INSERT INTO delivery_sandboxmail (message_id, from_email, to_email, subject, raw)
    SELECT e.message_id, e.from_email, e.to_email, e.subject, e.raw
    FROM unnest(%(ids)s::uuid[], %(attempts)s::int[], %(from)s::text[], %(to)s::text[],
                %(subjects)s::text[], %(raws)s::bytea[])
         AS e (message_id, attempt, from_email, to_email, subject, raw)
    JOIN (SELECT id, attempts FROM delivery_message
          WHERE id = ANY(%(ids)s) AND state = 'dispatching' ORDER BY id FOR SHARE) AS m
      ON m.id = e.message_id AND m.attempts = e.attempt
    RETURNING message_id
"""


class SandboxBackend(BaseEmailBackend):
    """Takes all mails of a call or none: one statement, committed on its own."""

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        ours = [email for email in email_messages if isinstance(email, OutboundEmail)]
        others = [_row(email) for email in email_messages if not isinstance(email, OutboundEmail)]
        SandboxMail.objects.bulk_create(others)
        return len(others) + self._deliver(ours)

    def _deliver(self, emails: Sequence[OutboundEmail]) -> int:
        if not emails:
            return 0
        rows = [_row(email) for email in emails]
        columns: dict[str, Any] = {
            "ids": [email.message_uuid for email in emails],
            "attempts": [email.attempt for email in emails],
            "from": [row.from_email for row in rows],
            "to": [row.to_email for row in rows],
            "subjects": [row.subject for row in rows],
            "raws": [row.raw for row in rows],
        }
        with connection.cursor() as cursor:
            cursor.execute(_DELIVER, columns)
            taken = {message_id for (message_id,) in cursor.fetchall()}
        for email in emails:
            if email.message_uuid not in taken:
                email.verdict = Verdict(Outcome.UNKNOWN, "the lease was lost before delivery")
        return len(taken)


def _row(email: EmailMessage) -> SandboxMail:
    return SandboxMail(
        from_email=str(email.from_email)[:320],
        to_email=", ".join(email.recipients())[:320],
        subject=str(email.subject)[:1000],
        raw=email.wire if isinstance(email, OutboundEmail) else _wire(email),
    )


def _wire(email: EmailMessage) -> bytes:
    raw: bytes = email.message().as_bytes(linesep="\r\n")  # type: ignore[call-arg]
    return raw

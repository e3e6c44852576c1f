"""A Django e-mail backend that delivers into the sandbox inbox."""

from collections.abc import Sequence
from typing import Any

from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.db import connection

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
        emails = [email for email in email_messages if isinstance(email, OutboundEmail)]
        assert len(emails) == len(email_messages)  # only hand-overs come here
        columns: dict[str, Any] = {
            "ids": [email.message_uuid for email in emails],
            "attempts": [email.attempt for email in emails],
            "from": [str(email.from_email)[:320] for email in emails],
            "to": [", ".join(email.recipients())[:320] for email in emails],
            "subjects": [str(email.subject)[:1000] for email in emails],
            "raws": [email.wire for email in emails],
        }
        with connection.cursor() as cursor:
            cursor.execute(_DELIVER, columns)
            taken = {message_id for (message_id,) in cursor.fetchall()}
        for email in emails:
            if email.message_uuid not in taken:
                email.verdict = Verdict(Outcome.UNKNOWN, "the lease was lost before delivery")
        return len(taken)

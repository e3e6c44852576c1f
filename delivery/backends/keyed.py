"""Backends of providers that take an idempotency key, which Anymail does not send: the message's
own id, so that a repeated call is answered with the first one's result."""

from typing import Any

from anymail.backends import brevo, resend

from delivery.backends.http import GuardedBackend
from delivery.outbound import OutboundEmail


class ResendBackend(GuardedBackend, resend.EmailBackend):
    """https://resend.com/docs/dashboard/emails/idempotency-keys: an HTTP header, 24 hours."""

    def add_key(self, payload: Any, message: OutboundEmail) -> None:
        payload.headers["Idempotency-Key"] = str(message.message_uuid)


class BrevoBackend(GuardedBackend, brevo.EmailBackend):
    """https://developers.brevo.com/docs/idempotent-requests: a mail header, half an hour.

    The message's id goes along as a tag too, which is what Brevo's log is searched by: of what
    else we send along, its log tells nothing.
    """

    def add_key(self, payload: Any, message: OutboundEmail) -> None:
        headers = payload.data.setdefault("headers", {})
        headers["idempotencyKey"] = str(message.message_uuid)
        payload.data["tags"] = [*payload.data.get("tags", []), str(message.message_uuid)]

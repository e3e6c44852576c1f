"""Backends of providers that take an idempotency key, which Anymail does not send: the message's
own id, so that a repeated call is answered with the first one's result."""

from typing import Any

from anymail.backends import brevo, resend
from django.core.mail import EmailMessage

from delivery.outbound import OutboundEmail


class ResendBackend(resend.EmailBackend):
    """https://resend.com/docs/dashboard/emails/idempotency-keys: an HTTP header, 24 hours."""

    def build_message_payload(self, message: EmailMessage, defaults: Any) -> Any:
        payload = super().build_message_payload(message, defaults)
        if isinstance(message, OutboundEmail):
            payload.headers["Idempotency-Key"] = str(message.message_uuid)
        return payload


class BrevoBackend(brevo.EmailBackend):
    """https://developers.brevo.com/docs/idempotent-requests: a mail header, half an hour.

    The message's id goes along as a tag too, which is what Brevo's log is searched by: of what
    else we send along, its log tells nothing.
    """

    def build_message_payload(self, message: EmailMessage, defaults: Any) -> Any:
        payload = super().build_message_payload(message, defaults)
        if isinstance(message, OutboundEmail):
            headers = payload.data.setdefault("headers", {})
            headers["idempotencyKey"] = str(message.message_uuid)
            payload.data["tags"] = [*payload.data.get("tags", []), str(message.message_uuid)]
        return payload

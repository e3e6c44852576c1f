"""From a stored message to the mail Django's backends take."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formataddr
from typing import Any
from uuid import UUID

from django.core.mail import EmailMultiAlternatives

from common.addresses import mask
from content.rendering import RenderedEmail, render
from delivery import mime
from delivery.headers import headers_of, unsubscribe_url
from delivery.models import Message, Provider, Sender
from delivery.states import Stream
from delivery.verdicts import Verdict


class OutboundEmail(EmailMultiAlternatives):
    """A mail that knows which message and which attempt it is, for backends that can use it.

    Any Django backend takes it. Backends of ours write `wire`, which is made already, and leave
    an individual outcome in `verdict`.
    """

    message_uuid: UUID
    attempt: int = 0
    wire: bytes
    """The whole mail with CRLF line ends, all ASCII."""
    envelope: tuple[str, str]
    """The addresses of SMTP's MAIL FROM and RCPT TO."""
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Outbound:
    """A message that passed the gate and is ready to be handed over."""

    message: Message
    provider: Provider
    sender: Sender
    email: OutboundEmail

    @property
    def wire_hash(self) -> bytes:
        """SHA-256 of the mail's bytes."""
        return hashlib.sha256(self.email.wire).digest()

    @property
    def in_words(self) -> str:
        """What is asked of the provider, as far as everybody may read it."""
        where = f" at {_public(self.provider.api_url)}" if self.provider.api_url else ""
        return (
            f"{self.provider.get_backend_display()}{where}: from {self.sender.email} to "
            f"{mask(self.email.to[0])}, {len(self.email.wire):,} bytes, "
            f"sha256 {self.wire_hash.hex()[:16]}…"
        )[:300]


def _public(url: str) -> str:
    """The URL without the user and password that somebody wrote into it."""
    scheme, mark, rest = url.rpartition("://")
    # The last one: a password may hold what should have been escaped.
    user, at, host = rest.rpartition("@")
    return f"{scheme}{mark}{'***' if user else ''}{at}{host}"


def render_message(message: Message, sender: Sender | None) -> RenderedEmail:
    """The wording of the pinned version over the stored context: the same bytes on every call.

    Raises `RenderError`.
    """
    return render(message.template_version, context_of(message, sender))


def context_of(message: Message, sender: Sender | None) -> dict[str, Any]:
    """The variables a template sees: the payload's own keys, and ours, which always win."""
    stored = message.context
    payload = stored.get("payload", {})
    context: dict[str, Any] = {**payload, **stored, "payload": payload}
    context["sender"] = (
        {"name": sender.name, "email": sender.email, "postal_address": sender.postal_address}
        if sender is not None
        else {}
    )
    context["topic"] = {"name": message.topic.name} if message.topic is not None else {}
    # Set in every case: a payload must not be able to bring its own.
    marketing = message.stream == Stream.MARKETING
    context["unsubscribe_url"] = unsubscribe_url(message.pk) if marketing else ""
    context["reason_line"] = message.topic.description if marketing and message.topic else ""
    return context


def build_outbound(
    message: Message, *, sender: Sender, provider: Provider, address: str, has_metadata: bool
) -> Outbound:
    """Render the message into a mail to `address`; raises `RenderError`, or `ValueError` when a
    header cannot be expressed. `has_metadata`: the provider takes some."""
    rendered = render_message(message, sender)
    headers = headers_of(message, sender)
    email = OutboundEmail(
        subject=rendered.subject,
        body=rendered.text,
        from_email=formataddr((sender.name, sender.email)),
        to=[address],
        reply_to=[sender.reply_to] if sender.reply_to else None,
        headers=headers,
    )
    email.attach_alternative(rendered.html, "text/html")
    email.message_uuid = message.pk
    # Anymail passes these on; they come back in the provider's webhooks.
    if has_metadata:
        email.metadata = {"message_uuid": str(message.pk)}  # type: ignore[attr-defined]
    if message.origin_campaign:
        email.tags = [message.origin_campaign]  # type: ignore[attr-defined]
    # Made now, it finds what cannot be sent while nothing has been promised yet.
    email.wire = mime.alternative(
        [*_addressing(sender, address, rendered.subject), *headers.items()],
        text=rendered.text,
        html=rendered.html,
        token=message.pk.hex,
    )
    email.envelope = (sender.email, address)
    return Outbound(message, provider, sender, email)


def _addressing(sender: Sender, address: str, subject: str) -> Iterator[tuple[str, str]]:
    yield "From", mime.mailbox(sender.name, sender.email)
    yield "To", mime.mailbox("", address)
    if sender.reply_to:
        yield "Reply-To", mime.mailbox("", sender.reply_to)
    yield "Subject", subject

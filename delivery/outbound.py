"""From a stored message to the mail Django's backends take."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from email.headerregistry import Address
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.core.mail import EmailMultiAlternatives

from common.addresses import mask
from content.hyperlinks import without_marks
from content.rendering import RenderedEmail, render
from delivery import mime
from delivery.headers import headers_of
from delivery.links import CONFIRM, PERSONAL_DATA, PREFERENCES, UNSUBSCRIBE, VIEW, link
from delivery.models import Message, Provider, Sender
from delivery.return_paths import return_path
from delivery.states import Stream
from delivery.tracking import tracked
from delivery.verdicts import Verdict

_LINKS = ("unsubscribe_url", "preferences_url", "view_url")


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
    links: Mapping[UUID, str] | None = None
    """Where its tracked links lead; None when it is not tracked."""

    @property
    def is_tracked(self) -> bool:
        """Whether it tells opens and clicks."""
        return self.links is not None

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

    Without what tracking adds, which is for the recipient alone: whoever looks at the mail here
    must not count as an open. Raises `RenderError`.
    """
    return _rendered(message, sender, is_tracked=False)[0]


def _rendered(
    message: Message, sender: Sender | None, *, is_tracked: bool
) -> tuple[RenderedEmail, Mapping[UUID, str] | None]:
    rendered = render(message.template_version, context_of(message, sender))
    if not is_tracked:
        html = without_marks(rendered.html)
        return rendered if html == rendered.html else replace(rendered, html=html), None
    html, links = tracked(rendered.html, message.pk)
    return replace(rendered, html=html), links


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
    context |= _links(message)
    context["reason_line"] = message.topic.description if marketing and message.topic else ""
    return context


def _links(message: Message) -> dict[str, str]:
    """The recipient's own links; what asks somebody to prove something has that link alone."""
    action = message.context.get("action")
    if action in (CONFIRM, PERSONAL_DATA):
        return {**dict.fromkeys(_LINKS, ""), "action_url": link(action, message.pk)}
    marketing = message.stream == Stream.MARKETING
    return {
        "unsubscribe_url": link(UNSUBSCRIBE, message.pk) if marketing else "",
        "preferences_url": link(PREFERENCES, message.pk) if marketing else "",
        "view_url": link(VIEW, message.pk),
        "action_url": "",
    }


def build_outbound(
    message: Message,
    *,
    sender: Sender,
    provider: Provider,
    address: str,
    has_metadata: bool,
    is_tracked: bool = False,
) -> Outbound:
    """Render the message into a mail to `address`; raises `RenderError`, or `ValueError` when a
    header cannot be expressed. `has_metadata`: the provider takes some. `is_tracked`: it tells
    opens and clicks."""
    rendered, links = _rendered(message, sender, is_tracked=is_tracked)
    headers = headers_of(message, sender)
    email = OutboundEmail(
        subject=rendered.subject,
        body=rendered.text,
        from_email=_from_email(sender.name, sender.email),
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
    email.envelope = (return_path(message.pk, sender.email), address)
    return Outbound(message, provider, sender, email, links)


@lru_cache(maxsize=256)
def _from_email(name: str, address: str) -> str:
    """As people read it: some providers want a name, not a header."""
    return str(Address(name, addr_spec=address))


def _addressing(sender: Sender, address: str, subject: str) -> Iterator[tuple[str, str]]:
    yield "From", mime.mailbox(sender.name, sender.email)
    yield "To", mime.mailbox("", address)
    if sender.reply_to:
        yield "Reply-To", mime.mailbox("", sender.reply_to)
    yield "Subject", subject

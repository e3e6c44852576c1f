"""Resend's webhooks, signed and repeated by Svix: https://docs.svix.com/receiving/verifying-payloads/how-manual.

What Resend tells of a bounce is what SES told it.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from hmac import digest
from typing import Any

from django.conf import settings

from delivery.bounces import BounceClass, classify_reply
from webhooks.adapters import Adapter, Event, NotAuthentic
from webhooks.authenticity import from_base64, is_one_of, require_recent, unix_time
from webhooks.classification import REJECTED, SES, Meaning, as_bounce, classify
from webhooks.kinds import Feedback, FeedbackKind
from webhooks.reading import (
    as_address,
    as_detail,
    as_esp_id,
    as_json,
    as_moment,
    at,
    decode,
    header,
    list_at,
    own_uuid,
    plain_id,
    text_at,
)

NAME = "resend"

_PREFIX = "whsec_"
_VERSION = "v1,"
# It goes on trying for 27 hours and 40 minutes.
_WINDOW = timedelta(hours=28)

_KINDS = {
    "email.sent": FeedbackKind.ACCEPTED,
    "email.delivered": FeedbackKind.DELIVERED,
    "email.delivery_delayed": FeedbackKind.DEFERRED,
    "email.opened": FeedbackKind.OPENED,
    "email.clicked": FeedbackKind.CLICKED,
}
_BOUNCES = {
    "email.complained": BounceClass.COMPLAINT,
    # It is on Resend's own list, after a bounce or a complaint.
    "email.suppressed": BounceClass.HARD,
}


def key_of(secret: str) -> bytes | None:
    """The key in a secret as Resend shows it, or None when it is none."""
    return from_base64(secret.removeprefix(_PREFIX)) if secret.startswith(_PREFIX) else None


def admits(headers: Mapping[str, str]) -> bool:
    """Whether there is a secret, and a signature to check with it."""
    return bool(settings.RESEND_WEBHOOK_SECRET and headers.get("Svix-Signature"))


def verify(headers: Mapping[str, str], body: bytes, now: datetime) -> None:
    """Raise `NotAuthentic` unless one of the secrets made one of the signatures: Svix sends
    several while a secret is being replaced. It signs every attempt anew."""
    own_id, timestamp = headers.get("Svix-Id", ""), headers.get("Svix-Timestamp", "")
    signed = f"{own_id}.{timestamp}.".encode() + body
    keys = [key for secret in settings.RESEND_WEBHOOK_SECRET if (key := key_of(secret))]
    expected = [_VERSION.encode() + b64encode(digest(key, signed, sha256)) for key in keys]
    given = headers["Svix-Signature"].split(" ")
    if not own_id or not any(is_one_of(entry.encode(), expected) for entry in given):
        raise NotAuthentic("The signature is not Resend's.")
    require_recent(unix_time(timestamp), now, _WINDOW)


def events(headers: Mapping[str, str], body: bytes) -> list[Event]:
    """One event, by the id that is signed with it and stays the same in every attempt."""
    decode(body)
    return [Event(plain_id(headers["Svix-Id"], body), body)]


def parse(body: bytes, received_at: datetime) -> Sequence[Feedback]:
    """One event."""
    raw = decode(body)
    data = raw.get("data")
    headers = list_at(data, "headers")
    kind, bounce_class = _meaning(text_at(raw, "type"), data)
    return [
        Feedback(
            kind=kind,
            at=as_moment(raw.get("created_at"), received_at),
            source=NAME,
            message_uuid=own_uuid(
                as_json(header(headers, "x-metadata")), header(headers, "message-id")
            ),
            esp_id=as_esp_id(at(data, "email_id")),
            # A mail of ours has one recipient.
            address=as_address(at(data, "to", 0)),
            bounce_class=bounce_class,
            detail=as_detail(
                *(text_at(data, "bounce", name) for name in ("type", "subType", "message")),
                text_at(data, "suppressed", "message"),
                text_at(data, "failed", "reason"),
            ),
        )
    ]


def _meaning(event: str, data: Any) -> Meaning:
    if event in _BOUNCES:
        return as_bounce(_BOUNCES[event])
    if event == "email.failed":
        return REJECTED
    if event == "email.bounced":
        bounce = at(data, "bounce")
        told = f"{text_at(bounce, 'type')}/{text_at(bounce, 'subType')}"
        if told != "/":
            return as_bounce(classify(SES, told))
        # Before 2025 it told nothing but a sentence.
        return as_bounce(classify_reply(text_at(bounce, "message")))
    return _KINDS.get(event, FeedbackKind.OTHER), None


ADAPTER = Adapter(
    admits=admits,
    verify=verify,
    events=events,
    parse=parse,
    settings=("RESEND_WEBHOOK_SECRET",),
)

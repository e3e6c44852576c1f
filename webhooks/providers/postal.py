"""Postal's webhooks, signed with the key of the installation, the one its DKIM record shows."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA1
from django.conf import settings

from delivery.bounces import BounceClass, classify_reply
from webhooks.adapters import Adapter, Event, NotAuthentic
from webhooks.authenticity import is_signed
from webhooks.classification import Meaning, as_bounce
from webhooks.kinds import Feedback, FeedbackKind
from webhooks.reading import (
    as_address,
    as_detail,
    as_esp_id,
    as_moment,
    at,
    decode,
    own_uuid,
    plain_id,
    text_at,
)

NAME = "postal"

# Postal 3 sends both; what is there in the better form is not looked for in the other.
_SIGNATURE_256 = "X-Postal-Signature-256"
_SIGNATURE = "X-Postal-Signature"

_KINDS = {
    "MessageSent": FeedbackKind.DELIVERED,
    "MessageDelayed": FeedbackKind.DEFERRED,
    "MessageLoaded": FeedbackKind.OPENED,
    "MessageLinkClicked": FeedbackKind.CLICKED,
}
# Why Postal put an address on its list; the list forgets after thirty days, ours does not.
_SUPPRESSED = "hard fail"


def admits(headers: Mapping[str, str]) -> bool:
    """Whether there is a key, and a signature to check with it."""
    signature = headers.get(_SIGNATURE_256) or headers.get(_SIGNATURE)
    return bool(settings.POSTAL_WEBHOOK_KEY and signature)


def verify(headers: Mapping[str, str], body: bytes, now: datetime) -> None:
    """Raise `NotAuthentic` unless one of the keys signed the bytes. A call that is made again
    later has the same id, and so no effect."""
    better = headers.get(_SIGNATURE_256)
    keys = settings.POSTAL_WEBHOOK_KEY
    if better:
        is_theirs = is_signed(body, better, keys)
    else:
        is_theirs = is_signed(body, headers[_SIGNATURE], keys, SHA1())  # noqa: S303 - Postal 2
    if not is_theirs:
        raise NotAuthentic("The signature is not Postal's.")


def events(headers: Mapping[str, str], body: bytes) -> list[Event]:
    """One event, by the call's own id."""
    return [Event(plain_id(decode(body).get("uuid"), body), body)]


def parse(body: bytes, received_at: datetime) -> Sequence[Feedback]:
    """One event; what is told about mail that came in is `OTHER`."""
    raw = decode(body)
    payload = raw.get("payload")
    message = at(payload, "message") or at(payload, "original_message")
    is_ours = text_at(message, "direction") != "incoming"
    kind, bounce_class = _meaning(raw, payload) if is_ours else (FeedbackKind.OTHER, None)
    # It keeps our Message-ID, and takes off the brackets.
    message_uuid = own_uuid(None, at(message, "message_id")) if is_ours else None
    return [
        Feedback(
            kind=kind,
            at=as_moment(raw.get("timestamp"), received_at),
            source=NAME,
            message_uuid=message_uuid,
            # A small number, and every Postal server begins at 1: it says nothing by itself.
            esp_id=as_esp_id(at(message, "id")) if message_uuid is not None else "",
            address=as_address(at(message, "to")) if is_ours else None,
            bounce_class=bounce_class,
            detail=as_detail(text_at(payload, "details"), _reply(payload)),
        )
    ]


def _meaning(raw: dict[str, Any], payload: Any) -> Meaning:
    event = text_at(raw, "event")
    if event == "MessageBounced":
        # All it tells of the mail that came back is the subject, and it may be a person's reply.
        return as_bounce(classify_reply(text_at(payload, "bounce", "subject")))
    if event == "MessageDeliveryFailed":
        return as_bounce(classify_reply(_reply(payload) or text_at(payload, "details")))
    if event == "MessageHeld" and _SUPPRESSED in text_at(payload, "details"):
        return as_bounce(BounceClass.HARD)
    return _KINDS.get(event, FeedbackKind.OTHER), None


def _reply(payload: Any) -> str:
    return text_at(payload, "output")


ADAPTER = Adapter(
    admits=admits,
    verify=verify,
    events=events,
    parse=parse,
    settings=("POSTAL_WEBHOOK_KEY",),
)

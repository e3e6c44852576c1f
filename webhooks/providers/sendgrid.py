"""SendGrid's event webhook: arrays of events, signed as a whole (ECDSA over time and body). It
repeats a refused array for a day, and puts events into other arrays when it does."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings

from delivery.bounces import BounceClass, classify_reply
from webhooks.adapters import MEGABYTE, Adapter, Event, NotAuthentic
from webhooks.authenticity import is_signed, require_recent, unix_time
from webhooks.classification import (
    BY_MACHINE,
    SENDGRID_BOUNCES,
    SENDGRID_DROPS,
    Meaning,
    as_bounce,
    known,
)
from webhooks.kinds import Feedback, FeedbackKind
from webhooks.reading import (
    as_address,
    as_detail,
    as_esp_id,
    as_json,
    as_moment,
    decode,
    own_uuid,
    plain_id,
    split,
    text_at,
)

NAME = "sendgrid"

_SIGNATURE = "X-Twilio-Email-Event-Webhook-Signature"
_TIMESTAMP = "X-Twilio-Email-Event-Webhook-Timestamp"
_WINDOW = timedelta(hours=25)

_KINDS = {
    "processed": FeedbackKind.ACCEPTED,
    "delivered": FeedbackKind.DELIVERED,
    "deferred": FeedbackKind.DEFERRED,
    "open": FeedbackKind.OPENED,
    "click": FeedbackKind.CLICKED,
}
# `group_resubscribe` is no consent of which we had proof: it is OTHER.
_PERSONS = {
    "spamreport": BounceClass.COMPLAINT,
    "unsubscribe": BounceClass.UNSUBSCRIBE,
    "group_unsubscribe": BounceClass.UNSUBSCRIBE,
}


def admits(headers: Mapping[str, str]) -> bool:
    """Whether there is a key, and a signature to check with it."""
    return bool(settings.SENDGRID_WEBHOOK_PUBLIC_KEY and headers.get(_SIGNATURE))


def verify(headers: Mapping[str, str], body: bytes, now: datetime) -> None:
    """Raise `NotAuthentic` unless one of the keys signed the bytes, within the last day."""
    timestamp = headers.get(_TIMESTAMP, "")
    signed = timestamp.encode() + body
    if not is_signed(signed, headers[_SIGNATURE], settings.SENDGRID_WEBHOOK_PUBLIC_KEY):
        raise NotAuthentic("The signature is not SendGrid's.")
    require_recent(unix_time(timestamp), now, _WINDOW)


def events(headers: Mapping[str, str], body: bytes) -> list[Event]:
    """One for each element of the array, by SendGrid's id of the event."""
    return [Event(_id(element), element) for element in split(body)]


def _id(element: bytes) -> str:
    return plain_id(as_json(element.decode()).get("sg_event_id"), element)


def parse(body: bytes, received_at: datetime) -> Sequence[Feedback]:
    """One event. What came along with the mail stands among the event's own fields."""
    raw = decode(body)
    kind, bounce_class = _meaning(raw)
    return [
        Feedback(
            kind=kind,
            at=as_moment(raw.get("timestamp"), received_at),
            source=NAME,
            message_uuid=own_uuid(raw, raw.get("smtp-id")),
            # Anymail's own: the API tells no id.
            esp_id=as_esp_id(raw.get("anymail_id")),
            address=as_address(raw.get("email")),
            bounce_class=bounce_class,
            detail=as_detail(
                *(text_at(raw, name) for name in ("type", "bounce_classification", "status")),
                text_at(raw, "reason") or text_at(raw, "response"),
            ),
        )
    ]


def _meaning(raw: dict[str, Any]) -> Meaning:
    event = text_at(raw, "event")
    if event in _PERSONS:
        return as_bounce(_PERSONS[event])
    if raw.get("sg_machine_open") is True:
        return BY_MACHINE
    if event == "bounce":
        return as_bounce(_bounce_class(raw))
    if event == "dropped":
        reason = text_at(raw, "reason")
        return as_bounce(known(SENDGRID_DROPS, reason) or classify_reply(reason))
    return _KINDS.get(event, FeedbackKind.OTHER), None


def _bounce_class(raw: dict[str, Any]) -> BounceClass:
    """A refusal that SendGrid calls `blocked` is no fault of the address, whatever it is."""
    told = known(SENDGRID_BOUNCES, text_at(raw, "bounce_classification"))
    if text_at(raw, "type") == "blocked":
        return told if told not in (None, BounceClass.HARD) else BounceClass.BLOCK
    return told or classify_reply(text_at(raw, "reason"), code=text_at(raw, "status"))


ADAPTER = Adapter(
    admits=admits,
    verify=verify,
    events=events,
    parse=parse,
    settings=("SENDGRID_WEBHOOK_PUBLIC_KEY",),
    max_body=5 * MEGABYTE,
)

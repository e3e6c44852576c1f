"""Brevo's transactional webhooks: an event, or an array of them where they are set to be batched.
It signs nothing: Basic authentication is all the proof there is.

It throws a call away after any answer but 2xx and 429, so what is our fault is answered 429.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from delivery.bounces import BounceClass, classify_reply, not_hard
from webhooks.adapters import MEGABYTE, Adapter, Event, never_mind
from webhooks.authenticity import basic_auth_of
from webhooks.classification import BREVO_BLOCKS, REJECTED, Meaning, as_bounce
from webhooks.kinds import Feedback, FeedbackKind
from webhooks.reading import (
    as_address,
    as_detail,
    as_esp_id,
    as_json,
    as_moment,
    decode,
    elements,
    hash_id,
    own_uuid,
    text_at,
)

NAME = "brevo"

# It tells no id of an event.
_IDENTITY = ("event", "message-id", "email", "ts_event", "ts_epoch", "link", "reason")

_KINDS = {
    "request": FeedbackKind.ACCEPTED,
    "delivered": FeedbackKind.DELIVERED,
    "deferred": FeedbackKind.DEFERRED,
    "opened": FeedbackKind.OPENED,
    "unique_opened": FeedbackKind.OPENED,
    "proxy_open": FeedbackKind.OPENED,
    "unique_proxy_open": FeedbackKind.OPENED,
    "click": FeedbackKind.CLICKED,
}
_BOUNCES = {
    "hard_bounce": BounceClass.HARD,
    "invalid_email": BounceClass.HARD,
    "spam": BounceClass.COMPLAINT,
    "complaint": BounceClass.COMPLAINT,
    "unsubscribe": BounceClass.UNSUBSCRIBE,
    "unsubscribed": BounceClass.UNSUBSCRIBE,
}


def events(headers: Mapping[str, str], body: bytes) -> list[Event]:
    """One for each element of the array ("batched"), or the one event, by what it tells."""
    return [Event(_id(as_json(element), element), element) for element in elements(body)]


def _id(raw: dict[str, Any], element: bytes) -> str:
    identity = [raw.get(name) for name in _IDENTITY]
    is_told = raw.get("ts_event") is not None or raw.get("ts_epoch") is not None
    return hash_id("event", *identity) if is_told else hash_id("body", element)


def parse(body: bytes, received_at: datetime) -> Sequence[Feedback]:
    """One event."""
    raw = decode(body)
    kind, bounce_class = _meaning(raw)
    return [
        Feedback(
            kind=kind,
            # Documented in milliseconds and shown in seconds; the one time that does not depend on
            # the account's zone.
            at=as_moment(raw.get("ts_epoch"), received_at),
            source=NAME,
            message_uuid=own_uuid(as_json(text_at(raw, "X-Mailin-custom")), raw.get("message-id")),
            esp_id=as_esp_id(raw.get("message-id")),
            address=as_address(raw.get("email")),
            bounce_class=bounce_class,
            detail=as_detail(text_at(raw, "event"), text_at(raw, "reason")),
        )
    ]


def _meaning(raw: dict[str, Any]) -> Meaning:
    event, reason = text_at(raw, "event"), text_at(raw, "reason")
    if event in _BOUNCES:
        return as_bounce(_BOUNCES[event])
    if event == "error":
        return REJECTED
    if event == "soft_bounce":
        return as_bounce(not_hard(classify_reply(reason)))
    if event == "blocked":
        told = (found for words, found in BREVO_BLOCKS.items() if words in reason.lower())
        return as_bounce(next(told, BounceClass.BLOCK))
    return _KINDS.get(event, FeedbackKind.OTHER), None


ADAPTER = Adapter(
    admits=basic_auth_of(NAME),
    verify=never_mind,
    events=events,
    parse=parse,
    max_body=5 * MEGABYTE,
    failure_status=429,
)

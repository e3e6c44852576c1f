"""Mailjet's event webhooks: an event, or an array of them ("group events"). It signs nothing: Basic
authentication is all the proof there is. It repeats a refused call for a day."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from delivery.bounces import BounceClass, classify_reply, not_hard
from webhooks.adapters import MEGABYTE, Adapter, Event, never_mind
from webhooks.authenticity import basic_auth_of
from webhooks.classification import MAILJET, Meaning, as_bounce, known
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

NAME = "mailjet"

# It tells no id of an event.
_IDENTITY = ("event", "time", "MessageID", "Message_GUID", "email", "url", "error", "ip")

_KINDS = {
    "sent": FeedbackKind.DELIVERED,  # the receiver's server has taken it
    "open": FeedbackKind.OPENED,
    "click": FeedbackKind.CLICKED,
}
_PERSONS = {
    "spam": BounceClass.COMPLAINT,
    "unsub": BounceClass.UNSUBSCRIBE,
}


def events(headers: Mapping[str, str], body: bytes) -> list[Event]:
    """One for each element of the array, or the one event, by what it tells."""
    return [Event(_id(as_json(element), element), element) for element in elements(body)]


def _id(raw: dict[str, Any], element: bytes) -> str:
    identity = [raw.get(name) for name in _IDENTITY]
    return hash_id("event", *identity) if raw.get("time") else hash_id("body", element)


def parse(body: bytes, received_at: datetime) -> Sequence[Feedback]:
    """One event."""
    raw = decode(body)
    kind, bounce_class = _meaning(raw)
    return [
        Feedback(
            kind=kind,
            at=as_moment(raw.get("time"), received_at),
            source=NAME,
            message_uuid=own_uuid(as_json(text_at(raw, "Payload"))),
            esp_id=as_esp_id(raw.get("MessageID")),
            address=as_address(raw.get("email")),
            bounce_class=bounce_class,
            detail=as_detail(
                *(text_at(raw, name) for name in ("error_related_to", "error", "comment")),
                text_at(raw, "smtp_reply"),
            ),
        )
    ]


def _meaning(raw: dict[str, Any]) -> Meaning:
    event = text_at(raw, "event")
    if event in _PERSONS:
        return as_bounce(_PERSONS[event])
    if event == "bounce" and text_at(raw, "error") == "greylisted" and not raw.get("hard_bounce"):
        return FeedbackKind.DEFERRED, None
    if event in ("bounce", "blocked"):
        return as_bounce(_bounce_class(raw))
    return _KINDS.get(event, FeedbackKind.OTHER), None


def _bounce_class(raw: dict[str, Any]) -> BounceClass:
    told = known(MAILJET, text_at(raw, "error"))
    bounce_class = told or classify_reply(text_at(raw, "comment") or text_at(raw, "error"))
    # Of what never left it does not say; of what came back it does.
    return not_hard(bounce_class) if raw.get("hard_bounce") is False else bounce_class


ADAPTER = Adapter(
    admits=basic_auth_of(NAME),
    verify=never_mind,
    events=events,
    parse=parse,
    max_body=5 * MEGABYTE,
)

"""SparkPost's webhooks: arrays of events, each wrapped twice. It signs nothing: Basic
authentication is all the proof there is. It waits ten seconds, and repeats a refused array for
eight hours."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from delivery.bounces import BounceClass, classify_reply
from webhooks.adapters import MEGABYTE, Adapter, Event, never_mind
from webhooks.authenticity import basic_auth_of
from webhooks.classification import REJECTED, SPARKPOST, Meaning, as_bounce, known
from webhooks.kinds import Feedback, FeedbackKind
from webhooks.reading import (
    as_address,
    as_detail,
    as_esp_id,
    as_json,
    as_moment,
    at,
    decode,
    own_uuid,
    plain_id,
    split,
    text_at,
)

NAME = "sparkpost"

_KINDS = {
    "injection": FeedbackKind.ACCEPTED,
    "delivery": FeedbackKind.DELIVERED,
    "delay": FeedbackKind.DEFERRED,
    "open": FeedbackKind.OPENED,
    "initial_open": FeedbackKind.OPENED,
    "amp_open": FeedbackKind.OPENED,
    "amp_initial_open": FeedbackKind.OPENED,
    "click": FeedbackKind.CLICKED,
    "amp_click": FeedbackKind.CLICKED,
}
_BOUNCES = {
    "spam_complaint": BounceClass.COMPLAINT,
    "list_unsubscribe": BounceClass.UNSUBSCRIBE,
    "link_unsubscribe": BounceClass.UNSUBSCRIBE,
}
_REFUSALS = ("bounce", "out_of_band", "policy_rejection", "generation_rejection")


def events(headers: Mapping[str, str], body: bytes) -> list[Event]:
    """One for each element of the array, by SparkPost's id of the event; none for its pings."""
    return [Event(_id(element), element) for element in split(body) if not _is_ping(element)]


def _id(element: bytes) -> str:
    return plain_id(at(_unwrapped(as_json(element.decode())), "event_id"), element)


def _is_ping(element: bytes) -> bool:
    return as_json(element.decode()) == {"msys": {}}


def parse(body: bytes, received_at: datetime) -> Sequence[Feedback]:
    """One event."""
    raw = _unwrapped(decode(body))
    kind, bounce_class = _meaning(raw)
    return [
        Feedback(
            kind=kind,
            at=as_moment(at(raw, "timestamp"), received_at),
            source=NAME,
            message_uuid=own_uuid(at(raw, "rcpt_meta")),
            esp_id=as_esp_id(at(raw, "transmission_id")),
            address=as_address(at(raw, "raw_rcpt_to") or at(raw, "rcpt_to")),
            bounce_class=bounce_class,
            detail=as_detail(
                text_at(raw, "bounce_class"),
                text_at(raw, "raw_reason") or text_at(raw, "reason"),
            ),
        )
    ]


def _unwrapped(document: dict[str, Any]) -> Any:
    """What stands in `{"msys": {"message_event": …}}`, whatever the inner name."""
    inside = document.get("msys")
    return next(iter(inside.values()), None) if isinstance(inside, dict) else None


def _meaning(raw: Any) -> Meaning:
    event = text_at(raw, "type")
    if event in _BOUNCES:
        return as_bounce(_BOUNCES[event])
    if event == "generation_failure":
        return REJECTED
    if event in _REFUSALS:
        reason = text_at(raw, "raw_reason") or text_at(raw, "reason")
        told = known(SPARKPOST, text_at(raw, "bounce_class"))
        return as_bounce(told or classify_reply(reason, code=text_at(raw, "error_code")))
    return _KINDS.get(event, FeedbackKind.OTHER), None


ADAPTER = Adapter(
    admits=basic_auth_of(NAME),
    verify=never_mind,
    events=events,
    parse=parse,
    max_body=5 * MEGABYTE,
)

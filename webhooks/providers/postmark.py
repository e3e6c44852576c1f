"""Postmark's webhooks: Delivery, Bounce, SpamComplaint, Open, Click, SubscriptionChange.

Postmark signs nothing: Basic authentication is all the proof there is. It repeats a refused call
for hours, except after a 403. For its broadcast streams it reports hard bounces and complaints as
SubscriptionChange only.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from delivery.bounces import BounceClass
from webhooks.adapters import Adapter, Event, never_mind
from webhooks.authenticity import basic_auth_of
from webhooks.classification import POSTMARK, Meaning, as_bounce, classify
from webhooks.kinds import Feedback, FeedbackKind
from webhooks.reading import (
    as_address,
    as_detail,
    as_esp_id,
    as_moment,
    decode,
    hash_id,
    own_uuid,
    text_at,
)

NAME = "postmark"

# What makes two calls the same. The rest may differ between repetitions (`Inactive` does, once
# somebody has reactivated the address).
_IDENTITY = (
    "RecordType",
    "ID",
    "MessageID",
    "Email",
    "Recipient",
    "DeliveredAt",
    "BouncedAt",
    "ReceivedAt",
    "ChangedAt",
    "OriginalLink",
    "MessageStream",
    "SuppressSending",
    "SuppressionReason",
)

_RECORDS = {
    "Delivery": FeedbackKind.DELIVERED,
    "Open": FeedbackKind.OPENED,
    "Click": FeedbackKind.CLICKED,
    "SpamComplaint": FeedbackKind.COMPLAINED,
}
SUPPRESSIONS: Mapping[str, BounceClass] = {
    "HardBounce": BounceClass.HARD,
    "SpamComplaint": BounceClass.COMPLAINT,
    "ManualSuppression": BounceClass.UNSUBSCRIBE,
}
# Of each kind of record, where it tells when it happened.
_TIMES = ("DeliveredAt", "BouncedAt", "ReceivedAt", "ChangedAt")


def events(headers: Mapping[str, str], body: bytes) -> list[Event]:
    """One event: `RecordType:hash`, the hash over what identifies it, else over the whole body."""
    raw = decode(body)
    record = text_at(raw, "RecordType")
    if record not in {*_RECORDS, "Bounce", "SubscriptionChange"}:
        return [Event(hash_id("other", body), body)]
    return [Event(hash_id(record, *(raw.get(field) for field in _IDENTITY)), body)]


def parse(body: bytes, received_at: datetime) -> Sequence[Feedback]:
    """One event. An unknown RecordType is `OTHER`."""
    raw = decode(body)
    kind, bounce_class = _meaning(raw)
    told_at = next((raw[name] for name in _TIMES if raw.get(name) is not None), None)
    return [
        Feedback(
            kind=kind,
            at=as_moment(told_at, received_at),
            source=NAME,
            message_uuid=own_uuid(raw.get("Metadata"), raw.get("MessageID")),
            esp_id=as_esp_id(raw.get("MessageID")),
            address=as_address(text_at(raw, "Email") or text_at(raw, "Recipient")),
            bounce_class=bounce_class,
            detail=as_detail(
                *(text_at(raw, name) for name in ("Type", "SuppressionReason", "Details"))
            ),
        )
    ]


def _meaning(raw: dict[str, Any]) -> Meaning:
    record = text_at(raw, "RecordType")
    if record == "Bounce":
        return as_bounce(classify(POSTMARK, raw.get("Type")))
    if record == "SubscriptionChange":
        # A reactivation at Postmark is no consent of the person: it lifts nothing here.
        reason = text_at(raw, "SuppressionReason") if raw.get("SuppressSending") is True else ""
        told = SUPPRESSIONS.get(reason)
        return as_bounce(told) if told else (FeedbackKind.OTHER, None)
    return _RECORDS.get(record, FeedbackKind.OTHER), None


ADAPTER = Adapter(admits=basic_auth_of(NAME), verify=never_mind, events=events, parse=parse)

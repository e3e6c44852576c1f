"""Postmark's webhooks: Delivery, Bounce, SpamComplaint, Open, Click, SubscriptionChange.

Postmark signs nothing: Basic authentication is all the proof there is. It repeats a refused call
for hours, except after a 403. For its broadcast streams it reports hard bounces and complaints as
SubscriptionChange only.
"""

import hashlib
import json
from datetime import datetime
from typing import Any

from anymail.webhooks.postmark import PostmarkTrackingWebhookView
from django.http import HttpRequest

from delivery.bounces import BounceClass
from webhooks.adapters import (
    Adapter,
    Malformed,
    as_address,
    as_detail,
    as_moment,
    as_request,
    has_basic_auth,
    own_uuid,
)
from webhooks.classification import POSTMARK, classify
from webhooks.feedback import Feedback, FeedbackKind

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
_BOUNCES = {
    BounceClass.COMPLAINT: FeedbackKind.COMPLAINED,
    BounceClass.UNSUBSCRIBE: FeedbackKind.UNSUBSCRIBED,
}
_SUPPRESSIONS = {
    "HardBounce": (FeedbackKind.BOUNCED, BounceClass.HARD),
    "SpamComplaint": (FeedbackKind.COMPLAINED, BounceClass.COMPLAINT),
    "ManualSuppression": (FeedbackKind.UNSUBSCRIBED, BounceClass.UNSUBSCRIBE),
}


def event_id(body: bytes) -> str:
    """`RecordType:hash`, the hash over what identifies the event, else over the whole body."""
    raw = _decode(body)
    record = raw.get("RecordType")
    if not isinstance(record, str) or record not in {*_RECORDS, "Bounce", "SubscriptionChange"}:
        return f"other:{hashlib.sha256(body).hexdigest()}"
    identity = json.dumps([raw.get(field) for field in _IDENTITY])
    return f"{record}:{hashlib.sha256(identity.encode()).hexdigest()}"


def parse(request: HttpRequest, received_at: datetime) -> list[Feedback]:
    """One call is one event. An unknown RecordType is `OTHER`."""
    # Anymail takes a null for a value and stumbles; Postmark sends null for "absent".
    raw = {key: value for key, value in _decode(request.body).items() if value is not None}
    clean = as_request(json.dumps(raw).encode(), "application/json")
    return [_feedback(event, received_at) for event in _VIEW.parse_events(clean)]


def _feedback(event: Any, received_at: datetime) -> Feedback:
    raw: dict[str, Any] = event.esp_event
    kind, bounce_class = _meaning(raw)
    return Feedback(
        kind=kind,
        at=as_moment(event.timestamp, received_at),
        source=NAME,
        message_uuid=own_uuid(event.metadata, event.message_id),
        esp_id=str(event.message_id or "")[:200],
        address=as_address(event.recipient),
        bounce_class=bounce_class,
        detail=as_detail(raw.get("Type"), raw.get("SuppressionReason"), event.mta_response),
    )


def _meaning(raw: dict[str, Any]) -> tuple[FeedbackKind, BounceClass | None]:
    record = raw.get("RecordType")
    if record == "Bounce":
        bounce_class = classify(POSTMARK, raw.get("Type"))
        return _BOUNCES.get(bounce_class, FeedbackKind.BOUNCED), bounce_class
    if record == "SubscriptionChange":
        # A reactivation at Postmark is no consent of the person: it lifts nothing here.
        reason = raw.get("SuppressionReason") if raw.get("SuppressSending") is True else None
        return _SUPPRESSIONS.get(str(reason), (FeedbackKind.OTHER, None))
    return _RECORDS.get(str(record), FeedbackKind.OTHER), None


def _decode(body: bytes) -> dict[str, Any]:
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON: {type(error).__name__}") from None
    if not isinstance(raw, dict):
        raise Malformed("not a JSON object")
    return raw


# The view authenticates nothing here: the call was authenticated before it was stored. The secret
# only keeps Anymail from warning about its absence.
_VIEW = PostmarkTrackingWebhookView(webhook_secret=["checked:already"])

ADAPTER = Adapter(is_authentic=has_basic_auth, event_id=event_id, parse=parse)

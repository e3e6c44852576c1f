"""Amazon SES, through SNS: bounces, complaints and deliveries, as notifications of an identity or
as events of a configuration set. Both may be on; what they tell twice is one receipt.

SNS is told apart from a stranger by its signature (`webhooks.sns`). Most of what SES tells about is
named differently in the two formats, but has the same shape.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from common.addresses import Address
from delivery.bounces import BounceClass, classify_reply, not_hard
from webhooks import sns
from webhooks.adapters import Adapter, Event
from webhooks.classification import (
    REJECTED,
    SES,
    Meaning,
    as_bounce,
    classify,
    unless_the_code_says,
)
from webhooks.kinds import Feedback, FeedbackKind
from webhooks.reading import (
    as_address,
    as_detail,
    as_esp_id,
    as_json,
    as_moment,
    at,
    decode,
    hash_id,
    header,
    list_at,
    own_uuid,
    plain_id,
    text_at,
)

logger = logging.getLogger(__name__)

NAME = "ses"

# Where an event tells about itself: its own part of the document, and the recipients in there.
_PARTS = {
    "Bounce": ("bounce", "bouncedRecipients"),
    "Complaint": ("complaint", "complainedRecipients"),
    "Delivery": ("delivery", "recipients"),
    "DeliveryDelay": ("deliveryDelay", "delayedRecipients"),
    "Open": ("open", ""),
    "Click": ("click", ""),
    "Send": ("send", ""),
    "Reject": ("reject", ""),
    "Rendering Failure": ("failure", ""),
    "Subscription": ("subscription", ""),
}
_KINDS = {
    "Send": FeedbackKind.ACCEPTED,
    "Delivery": FeedbackKind.DELIVERED,
    "DeliveryDelay": FeedbackKind.DEFERRED,
    "Open": FeedbackKind.OPENED,
    "Click": FeedbackKind.CLICKED,
}
# Of what the person did not complain about; null, "abuse", "fraud" and "other" are complaints.
_NO_COMPLAINTS: dict[str, BounceClass | None] = {
    "not-spam": None,
    "auth-failure": BounceClass.AUTH,
    "virus": BounceClass.CONTENT,
}

_DETAILS = (
    *("bounceType", "bounceSubType", "complaintFeedbackType", "complaintSubType", "delayType"),
    *("reason", "errorMessage", "smtpResponse"),
)


def events(headers: Mapping[str, str], body: bytes) -> list[Event]:
    """One event. A bounce or complaint has an id of its own in both of SES's formats, the others
    are the same when they tell the same about the same mail."""
    message = decode(body)
    event = as_json(text_at(message, "Message"))
    kind = _kind(event)
    if text_at(message, "Type") != "Notification" or kind not in _PARTS:
        return [Event(plain_id(message.get("MessageId"), body), body)]
    about = at(event, _PARTS[kind][0])
    own_id = text_at(about, "feedbackId")
    details = [text_at(about, name) for name in ("timestamp", "link", "ipAddress")]
    identity = (text_at(event, "mail", "messageId"), own_id or details, _recipients(event))
    return [Event(hash_id(kind, *identity), body)]


def parse(body: bytes, received_at: datetime) -> Sequence[Feedback]:
    """One piece of feedback for each recipient. What SNS says in its own name is `OTHER`."""
    event = as_json(text_at(decode(body), "Message"))
    if not _kind(event):
        return [Feedback(FeedbackKind.OTHER, received_at, NAME)]
    return [_feedback(event, recipient, received_at) for recipient in _recipients(event) or [""]]


def errand(body: bytes) -> str:
    """Accept a subscription, and note when one has ended."""
    message = decode(body)
    topic = {"topic": text_at(message, "TopicArn")}
    match text_at(message, "Type"):
        case "SubscriptionConfirmation":
            sns.confirm(message)
            logger.info("subscription to SNS confirmed", extra=topic)
            return "subscription confirmed"
        case "UnsubscribeConfirmation":
            logger.warning("subscription to SNS ended: no bounce arrives from it", extra=topic)
            return "subscription ended"
    return ""


def _feedback(event: dict[str, Any], recipient: str, received_at: datetime) -> Feedback:
    part, _ = _PARTS.get(_kind(event), ("", ""))
    headers = list_at(event, "mail", "headers")
    kind, bounce_class = _meaning(event, part, recipient)
    metadata = as_json(header(headers, "x-metadata"))
    diagnosis = _recipient_part(event, recipient)
    return Feedback(
        kind=kind,
        at=as_moment(at(event, part, "timestamp"), received_at),
        source=NAME,
        message_uuid=own_uuid(
            metadata, header(headers, "message-id"), at(event, "mail", "commonHeaders", "messageId")
        ),
        esp_id=as_esp_id(at(event, "mail", "messageId")),
        address=_named(event, recipient),
        bounce_class=bounce_class,
        detail=as_detail(
            *(text_at(event, part, name) for name in _DETAILS),
            text_at(diagnosis, "diagnosticCode"),
        ),
    )


def _meaning(event: dict[str, Any], part: str, recipient: str) -> Meaning:
    kind, about = _kind(event), at(event, part)
    if kind == "Bounce":
        return as_bounce(_bounce_class(about, _recipient_part(event, recipient)))
    if kind == "Complaint":
        told = text_at(about, "complaintFeedbackType")
        if told in _NO_COMPLAINTS and not text_at(about, "complaintSubType"):
            return FeedbackKind.OTHER, _NO_COMPLAINTS[told]
        return as_bounce(BounceClass.COMPLAINT)
    if kind in ("Reject", "Rendering Failure"):
        return REJECTED
    if kind == "Subscription":
        # Whoever subscribes again through SES's page has proven nothing to us.
        ends = at(about, "newTopicPreferences", "unsubscribeAll") is True
        return as_bounce(BounceClass.UNSUBSCRIBE) if ends else (FeedbackKind.OTHER, None)
    return _KINDS.get(kind, FeedbackKind.OTHER), None


def _bounce_class(bounce: object, recipient: object) -> BounceClass:
    told = f"{text_at(bounce, 'bounceType')}/{text_at(bounce, 'bounceSubType')}"
    status, reply = text_at(recipient, "status"), text_at(recipient, "diagnosticCode")
    if told == "Permanent/General":
        return unless_the_code_says(BounceClass.HARD, reply, status)
    if told != "Transient/General":
        return classify(SES, told)
    # An out-of-office reply comes to SES as a mail, without what a server's refusal has.
    if not status and not reply:
        return BounceClass.AUTO_REPLY
    return not_hard(classify_reply(reply, code=status))


def _recipients(event: dict[str, Any]) -> list[str]:
    """The addresses an event is about; opens and clicks do not tell, so those of the mail."""
    part, field = _PARTS.get(_kind(event), ("", ""))
    told = [_address(entry) for entry in list_at(event, part, field)]
    of_mail = [_address(entry) for entry in list_at(event, "mail", "destination")]
    return [address for address in told or of_mail if address]


def _recipient_part(event: dict[str, Any], recipient: str) -> object:
    part, field = _PARTS.get(_kind(event), ("", ""))
    found = (entry for entry in list_at(event, part, field) if _address(entry) == recipient)
    return next(found, None)


def _named(event: dict[str, Any], recipient: str) -> Address | None:
    """The recipient, if the mail was for them. In a bounce it is the server that returns the mail
    who writes whom it could not reach: behind a forward that is somebody else, and with ill will
    anybody. Then it is about the one the mail was for, where that was one."""
    told = as_address(recipient)
    destination = map(as_address, map(_address, list_at(event, "mail", "destination")))
    meant = [address for address in destination if address is not None]
    if told is None or not meant or told.normalized in {one.normalized for one in meant}:
        return told
    return meant[0] if len(meant) == 1 else None


def _address(entry: object) -> str:
    return entry if isinstance(entry, str) else text_at(entry, "emailAddress")


def _kind(event: dict[str, Any]) -> str:
    return text_at(event, "eventType") or text_at(event, "notificationType")


ADAPTER = Adapter(
    admits=sns.admits,
    verify=sns.verify,
    waits=sns.waits,
    events=events,
    parse=parse,
    errand=errand,
    settings=("SES_TOPIC_ARNS",),
)

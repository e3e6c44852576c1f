"""MailerSend's webhooks, signed with a secret. It waits three seconds for an answer, and calls
twice more within two minutes.

Before it saves a webhook it wants a ping answered, which it signs with a secret that everybody can
read in its documentation. So the ping is answered, even while the webhook's own secret is not known
yet, and nothing of it is kept.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from hmac import digest
from typing import Any

from django.conf import settings

from delivery.bounces import BounceClass, classify_reply, not_hard
from webhooks.adapters import Adapter, Event, NotAuthentic
from webhooks.authenticity import is_one_of
from webhooks.classification import Meaning, as_bounce
from webhooks.kinds import Feedback, FeedbackKind
from webhooks.reading import (
    Malformed,
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

NAME = "mailersend"

_PING = "webhook.test"
_PING_SECRET = b"test_Am3L1GuOIc4blLUuHqAPxxwkZaJyEk8G"

_KINDS = {
    "sent": FeedbackKind.ACCEPTED,
    "delivered": FeedbackKind.DELIVERED,
    "deferred": FeedbackKind.DEFERRED,
    "opened": FeedbackKind.OPENED,
    "opened_unique": FeedbackKind.OPENED,
    "clicked": FeedbackKind.CLICKED,
    "clicked_unique": FeedbackKind.CLICKED,
}
_BOUNCES = {
    "hard_bounced": BounceClass.HARD,
    "spam_complaint": BounceClass.COMPLAINT,
    "unsubscribed": BounceClass.UNSUBSCRIBE,
    # It is on MailerSend's own list, for a reason that is not told.
    "suppressed": BounceClass.BLOCK,
}


def admits(headers: Mapping[str, str]) -> bool:
    """Whether there is a signature; without a secret nothing but the ping can have a good one."""
    return bool(headers.get("Signature"))


def verify(headers: Mapping[str, str], body: bytes, now: datetime) -> None:
    """Raise `NotAuthentic` unless one of the secrets signed the bytes. No time is signed: a call
    that is made again later has the same id, and so no effect."""
    secrets = [secret.encode() for secret in settings.MAILERSEND_WEBHOOK_SECRET]
    if _is_ping(body):
        secrets.append(_PING_SECRET)
    expected = (digest(secret, body, sha256).hex().encode() for secret in secrets)
    if not is_one_of(headers["Signature"].encode(), expected):
        raise NotAuthentic("The signature is not MailerSend's.")


def events(headers: Mapping[str, str], body: bytes) -> list[Event]:
    """One event, by the activity's id; none for a ping."""
    document = decode(body)
    if _is_ping(body):
        return []
    return [Event(plain_id(at(document, "data", "id"), body), body)]


def _is_ping(body: bytes) -> bool:
    try:
        return text_at(decode(body), "type") == _PING
    except Malformed:
        return False


def parse(body: bytes, received_at: datetime) -> Sequence[Feedback]:
    """One event. The mail's own Message-ID is MailerSend's: the message is found by its id."""
    raw = decode(body)
    data = raw.get("data")
    kind, bounce_class = _meaning(data, text_at(raw, "type"))
    message = at(data, "email", "message")
    return [
        Feedback(
            kind=kind,
            at=as_moment(at(data, "created_at"), received_at),
            source=NAME,
            message_uuid=own_uuid(None, at(message, "message_id")),
            esp_id=as_esp_id(at(message, "id")),
            address=as_address(at(data, "email", "recipient", "email")),
            bounce_class=bounce_class,
            detail=as_detail(text_at(data, "type"), _reason(data)),
        )
    ]


def _meaning(data: Any, call: str) -> Meaning:
    activity = text_at(data, "type") or call.removeprefix("activity.")
    if activity in _BOUNCES:
        return as_bounce(_BOUNCES[activity])
    if activity == "soft_bounced":
        return as_bounce(not_hard(classify_reply(_reason(data))))
    return _KINDS.get(activity, FeedbackKind.OTHER), None


def _reason(data: Any) -> str:
    return text_at(data, "morph", "readable_reason") or text_at(data, "morph", "reason")


ADAPTER = Adapter(
    admits=admits,
    verify=verify,
    events=events,
    parse=parse,
    settings=("MAILERSEND_WEBHOOK_SECRET",),
)

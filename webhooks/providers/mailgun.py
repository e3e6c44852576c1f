"""Mailgun's webhooks, in the JSON form they have since 2018.

Its signature covers a time and a token, not what the call says, and is good at every URL that an
account sends to. So a call needs our own credentials besides (Basic authentication, in the URL),
and a signature is good for one body.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from hmac import digest
from typing import Any

from django.conf import settings

from delivery.bounces import BounceClass, classify_reply
from webhooks.adapters import Adapter, Event, NotAuthentic
from webhooks.authenticity import has_basic_auth, is_one_of, require_recent, unix_time
from webhooks.classification import (
    MAILGUN,
    REJECTED,
    Meaning,
    as_bounce,
    known,
    unless_the_code_says,
)
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

NAME = "mailgun"

# It goes on trying for eight hours.
_WINDOW = timedelta(hours=8, minutes=30)

_HEADERS = ("message", "headers")

_KINDS = {
    "accepted": FeedbackKind.ACCEPTED,
    "delivered": FeedbackKind.DELIVERED,
    "opened": FeedbackKind.OPENED,
    "clicked": FeedbackKind.CLICKED,
}
_PERSONS = {
    "complained": BounceClass.COMPLAINT,
    "unsubscribed": BounceClass.UNSUBSCRIBE,
}


def admits(headers: Mapping[str, str]) -> bool:
    """Whether there is a key, and the call carries our credentials."""
    return bool(settings.MAILGUN_WEBHOOK_SIGNING_KEY) and has_basic_auth(NAME, headers)


def verify(headers: Mapping[str, str], body: bytes, now: datetime) -> None:
    """Raise `NotAuthentic` unless one of the keys signed its token, within the last hours."""
    document = decode(body)
    timestamp, token, signature = (
        text_at(document, "signature", name) for name in ("timestamp", "token", "signature")
    )
    signed = f"{timestamp}{token}".encode(errors="surrogatepass")
    keys = (key.encode() for key in settings.MAILGUN_WEBHOOK_SIGNING_KEY)
    expected = (digest(key, signed, sha256).hex().encode() for key in keys)
    if not token or not is_one_of(signature.encode(errors="replace"), expected):
        raise NotAuthentic("The signature is not Mailgun's.")
    require_recent(unix_time(timestamp), now, _WINDOW)


def events(headers: Mapping[str, str], body: bytes) -> list[Event]:
    """One event, by its signature. Mailgun says to look at the token; but where the time ends and
    the token begins, the signature does not say."""
    return [Event(plain_id(at(decode(body), "signature", "signature"), body), body)]


def parse(body: bytes, received_at: datetime) -> Sequence[Feedback]:
    """One event."""
    raw = at(decode(body), "event-data")
    kind, bounce_class = _meaning(raw)
    message_id = text_at(raw, *_HEADERS, "message-id")
    status = at(raw, "delivery-status")
    return [
        Feedback(
            kind=kind,
            at=as_moment(at(raw, "timestamp"), received_at),
            source=NAME,
            message_uuid=own_uuid(at(raw, "user-variables"), message_id),
            # The API tells it in brackets.
            esp_id=as_esp_id(f"<{message_id.strip('<>')}>" if message_id else ""),
            # What was rejected had no recipient yet.
            address=as_address(text_at(raw, "recipient") or text_at(raw, *_HEADERS, "to")),
            bounce_class=bounce_class,
            detail=as_detail(
                text_at(raw, "severity"),
                text_at(raw, "reason") or text_at(raw, "reject", "reason"),
                text_at(status, "message") or text_at(status, "description"),
            ),
        )
    ]


def _meaning(raw: Any) -> Meaning:
    event = text_at(raw, "event")
    if event in _PERSONS:
        return as_bounce(_PERSONS[event])
    if event == "rejected":
        return REJECTED
    if event == "failed" and text_at(raw, "severity") == "temporary":
        return FeedbackKind.DEFERRED, None
    if event == "failed":
        return as_bounce(_bounce_class(raw))
    return _KINDS.get(event, FeedbackKind.OTHER), None


def _bounce_class(raw: Any) -> BounceClass:
    status, reason = at(raw, "delivery-status"), text_at(raw, "reason")
    text = text_at(status, "message") or text_at(status, "description")
    code = text_at(status, "enhanced-code") or text_at(status, "code")
    if reason == "bounce":
        return unless_the_code_says(BounceClass.HARD, text, code)
    return known(MAILGUN, reason) or classify_reply(text, code=code)


ADAPTER = Adapter(
    admits=admits,
    verify=verify,
    events=events,
    parse=parse,
    settings=("WEBHOOK_SECRET", "MAILGUN_WEBHOOK_SIGNING_KEY"),
    ids_are_single_use=True,
)

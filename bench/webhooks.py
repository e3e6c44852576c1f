"""What providers call with: the story of each mail, in a provider's own words, signed as it signs.

Every mail has three things to tell. Of twenty, eighteen are delivered, opened and clicked; one is
opened and called spam; one is put off twice and comes back for good.
"""

import base64
import hmac
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bench.load import Call

_BASIC = "hook:a-long-password-for-a-benchmark"
_KEY = "a-signing-key-for-a-benchmark"
_SVIX = base64.b64encode(f"{_KEY:0<32}".encode())
_EC = ec.generate_private_key(ec.SECP256R1())
_ALL_WELL = ("delivered", "opened", "clicked")
_STORIES = {9: ("delivered", "opened", "complained"), 19: ("deferred", "deferred", "bounced")}
_AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
_AUTHORIZATION = {"Authorization": f"Basic {base64.b64encode(_BASIC.encode()).decode()}"}
# One call in so many is made twice, as after an answer that was lost.
_REPEATED = 20

SECRETS = {
    "WEBHOOK_SECRET": _BASIC,
    "MAILGUN_WEBHOOK_SIGNING_KEY": _KEY,
    "RESEND_WEBHOOK_SECRET": f"whsec_{_SVIX.decode()}",
    "SENDGRID_WEBHOOK_PUBLIC_KEY": base64.b64encode(
        _EC.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).decode(),
}
"""The environment of a server that takes these calls."""

PER_MAIL = 3


@dataclass(frozen=True, slots=True)
class Told:
    """One thing that happened to a mail."""

    kind: str
    at: datetime
    message: UUID
    address: str
    number: int


def story(message: UUID, address: str, number: int, start: datetime) -> list[Told]:
    """What happened to the mail, in order; its moments are `number` and its place apart."""
    kinds = _STORIES.get(number % 20, _ALL_WELL)
    first = int(start.timestamp()) + number
    return [
        Told(kind, datetime.fromtimestamp(first + 100_000 * place, UTC), message, address, place)
        for place, kind in enumerate(kinds)
    ]


def singles(told: Sequence[Told]) -> list[Call]:
    """A call for each, from Postmark, Mailgun and Resend in turns."""
    made = [_SINGLES[number % len(_SINGLES)](thing) for number, thing in enumerate(told)]
    return _with_repetitions(made)


def arrays(told: Sequence[Told], size: int) -> list[Call]:
    """SendGrid's arrays."""
    parts = [told[start : start + size] for start in range(0, len(told), size)]
    return _with_repetitions([_sendgrid(part) for part in parts])


def shuffled(told: Iterable[Told]) -> list[Told]:
    """In an order that is nobody's, and the same in every run."""
    mixed = list(told)
    random.Random(5).shuffle(mixed)  # noqa: S311 - nothing depends on it
    return mixed


def _with_repetitions(calls: Sequence[Call]) -> list[Call]:
    made: list[Call] = []
    for number, call in enumerate(calls):
        made.append(call)
        if number % _REPEATED == _REPEATED - 1:
            made.append(calls[number // 2])
    return made


def _postmark(told: Told) -> Call:
    records = {"bounced": "Bounce", "complained": "SpamComplaint", "deferred": "Deferral"}
    records |= {"delivered": "Delivery", "opened": "Open", "clicked": "Click"}
    moment = told.at.isoformat()
    is_back = told.kind in ("bounced", "complained", "deferred")
    document = {
        "RecordType": records[told.kind],
        "MessageID": str(told.message),
        "ID": told.message.int % 10**12 + told.number,
        "Email" if is_back else "Recipient": told.address,
        {"delivered": "DeliveredAt"}.get(
            told.kind, "BouncedAt" if is_back else "ReceivedAt"
        ): moment,
        "Type": "HardBounce",
        "Details": "smtp;250 2.0.0 OK",
        "Metadata": {"message_uuid": str(told.message)},
        "MessageStream": "outbound",
        "ServerID": 23,
        "Tag": "welcome",
        "UserAgent": _AGENT,
        "Geo": {"Country": "Germany", "City": "Kiel", "IP": "198.51.100.7", "Coords": "54,10"},
        "OriginalLink": "https://shop.example.com/lanterns/storm?from=welcome",
    }
    return Call("/webhooks/postmark/", _AUTHORIZATION, msgspec.json.encode(document))


def _mailgun(told: Told) -> Call:
    events = {"bounced": "failed", "deferred": "failed"}
    timestamp = str(int(time.time()))
    token = sha256(f"{told.message}{told.number}".encode()).hexdigest()[:50]
    document = {
        "signature": {
            "timestamp": timestamp,
            "token": token,
            "signature": _hmac(_KEY.encode(), f"{timestamp}{token}".encode()).hex(),
        },
        "event-data": {
            "id": token[:22],
            "event": events.get(told.kind, told.kind),
            "timestamp": told.at.timestamp(),
            "severity": "temporary" if told.kind == "deferred" else "permanent",
            "reason": "bounce",
            "recipient": told.address,
            "user-variables": {"message_uuid": str(told.message)},
            "message": {"headers": {"message-id": f"{told.message}@example.com"}, "size": 4812},
            "delivery-status": {"code": 250, "message": "OK", "mx-host": "mx.example.com"},
            "client-info": {"client-os": "Linux", "user-agent": _AGENT},
            "flags": {"is-authenticated": True, "is-routed": False, "is-test-mode": False},
        },
    }
    return Call("/webhooks/mailgun/", _AUTHORIZATION, msgspec.json.encode(document))


def _resend(told: Told) -> Call:
    kinds = {"deferred": "delivery_delayed"}
    metadata = msgspec.json.encode({"message_uuid": str(told.message)}).decode()
    body = msgspec.json.encode(
        {
            "type": f"email.{kinds.get(told.kind, told.kind)}",
            "created_at": told.at.isoformat(),
            "data": {
                "email_id": str(told.message),
                "from": "Shop <shop@example.com>",
                "to": [told.address],
                "subject": "Welcome",
                "headers": [{"name": "X-Metadata", "value": metadata}],
                "bounce": {"type": "Permanent", "subType": "General", "message": "No such user."},
                "click": {"ipAddress": "198.51.100.7", "userAgent": _AGENT},
            },
        }
    )
    own_id, timestamp = f"msg_{sha256(body).hexdigest()[:27]}", str(int(time.time()))
    mac = _hmac(base64.b64decode(_SVIX), f"{own_id}.{timestamp}.".encode() + body)
    headers = {
        "Svix-Id": own_id,
        "Svix-Timestamp": timestamp,
        "Svix-Signature": f"v1,{base64.b64encode(mac).decode()}",
    }
    return Call("/webhooks/resend/", headers, body)


_SINGLES: Sequence[Callable[[Told], Call]] = (_postmark, _mailgun, _resend)


def _sendgrid(told: Sequence[Told]) -> Call:
    body = msgspec.json.encode([_sendgrid_event(thing) for thing in told])
    timestamp = str(int(time.time()))
    signature = _EC.sign(timestamp.encode() + body, ec.ECDSA(SHA256()))
    prefix = "X-Twilio-Email-Event-Webhook"
    headers = {
        f"{prefix}-Signature": base64.b64encode(signature).decode(),
        f"{prefix}-Timestamp": timestamp,
    }
    return Call("/webhooks/sendgrid/", headers, body)


def _sendgrid_event(told: Told) -> Mapping[str, Any]:
    events = {"opened": "open", "clicked": "click", "complained": "spamreport", "bounced": "bounce"}
    return {
        "event": events.get(told.kind, told.kind),
        "sg_event_id": base64.b64encode(f"{told.message}{told.number}".encode()).decode(),
        "sg_message_id": f"{told.message}.filter-0",
        "timestamp": int(told.at.timestamp()),
        "email": told.address,
        "message_uuid": str(told.message),
        "smtp-id": f"<{told.message}@example.com>",
        "bounce_classification": "Invalid Address",
        "type": "bounce",
        "reason": "550 5.1.1 The email account that you tried to reach does not exist",
        "useragent": _AGENT,
        "ip": "198.51.100.7",
        "category": ["welcome"],
    }


def _hmac(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")

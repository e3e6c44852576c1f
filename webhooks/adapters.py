"""What a provider has to bring so that its webhooks can be taken, and what most of them share."""

import base64
import binascii
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest

from common.addresses import Address, InvalidAddress, parse_address
from delivery.headers import uuid_in_message_id
from webhooks.feedback import Feedback

_MAX_DETAIL = 1_000


class Malformed(ValueError):
    """The body is none this provider could have sent."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """One provider's webhooks. The first two functions run while the provider waits."""

    is_authentic: Callable[[Mapping[str, str]], bool]
    """headers → whether the provider sent it."""
    event_id: Callable[[bytes], str]
    """body → the same id for every repetition of the call; raises `Malformed`."""
    parse: Callable[[HttpRequest, datetime], list[Feedback]]
    """(the call as it came, when it came) → what it says."""


def has_basic_auth(headers: Mapping[str, str]) -> bool:
    """Whether the call carries one of the `WEBHOOK_SECRET` pairs. None set: never."""
    scheme, _, encoded = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        given = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return False
    # Every pair is compared, so that the time tells nothing about which one was close.
    return sum([hmac.compare_digest(given, pair.encode()) for pair in usable_secrets()]) > 0


def usable_secrets() -> list[str]:
    """The `user:password` pairs among the configured secrets."""
    return [pair for pair in settings.WEBHOOK_SECRET if all(pair.partition(":"))]


def as_request(body: bytes, content_type: str) -> HttpRequest:
    """A stored call as the request it was, for Anymail's parsers."""
    return WSGIRequest(
        {
            "REQUEST_METHOD": "POST",
            "CONTENT_TYPE": content_type,
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": BytesIO(body),
        }
    )


def own_uuid(metadata: Mapping[str, Any], message_id: object) -> UUID | None:
    """Our message, by the metadata we sent along or by a Message-ID of ours."""
    try:
        return UUID(str(metadata["message_uuid"]))
    except (KeyError, ValueError):
        return uuid_in_message_id(message_id) if isinstance(message_id, str) else None


def as_address(text: object) -> Address | None:
    """The address a provider names, or None when it is none that could be mailed."""
    try:
        return parse_address(text) if isinstance(text, str) else None
    except InvalidAddress:
        return None


def as_moment(moment: object, otherwise: datetime) -> datetime:
    """A provider's time; without a zone it is UTC, and without a time it is `otherwise`."""
    if not isinstance(moment, datetime):
        return otherwise
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def as_detail(*parts: object) -> str:
    """A provider's free texts as one that PostgreSQL can store."""
    text = " · ".join(part for part in parts if isinstance(part, str) and part)
    return text.encode(errors="replace").decode().replace("\x00", "")[:_MAX_DETAIL]

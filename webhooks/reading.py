"""Reading what providers send: nothing here takes a field, or its type, for granted.

Providers send null for "absent", leave out what their documentation shows, and add what it does
not. A missing field reads as empty; only a body that is no JSON object is `Malformed`.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from common.addresses import Address, InvalidAddress, parse_address
from common.clock import from_iso8601, from_milliseconds
from delivery.headers import uuid_in_message_id

_MAX_DETAIL = 1_000
_PLAIN_ID = re.compile(r"[!-~]{1,150}")
_NAMED = re.compile(r"[^<>@]*<([^<>]+)>\s*")
_BETWEEN = " \t\r\n,"
# A number from here on is of milliseconds: of seconds it would be in the year 5138.
_MILLISECONDS = 1e11
_FIRST_YEAR = 2010
_AHEAD = timedelta(days=1)
_DECODER = json.JSONDecoder()
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])


class Malformed(ValueError):
    """The body is none this provider could have sent."""


def decode(body: bytes | str) -> dict[str, Any]:
    """The JSON object in `body`; raises `Malformed`."""
    document = _document(body)
    if not isinstance(document, dict):
        raise Malformed("not a JSON object")
    return document


def _document(body: bytes | str) -> Any:
    """What is ordinary JSON is read by the decoder that takes a third of the time; what providers
    send besides (a lone surrogate, NaN, UTF-16) by the one that lets it pass."""
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):
        pass
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON: {type(error).__name__}") from None


def split(body: bytes) -> list[bytes]:
    """The elements of the JSON array in `body`, byte for byte; raises `Malformed`."""
    try:
        text = body.decode()
        # Checks and cuts in one go; what it refuses may still be what `decode` lets pass.
        with suppress(msgspec.MsgspecError):
            return [bytes(element) for element in _ELEMENTS.decode(body)]
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON: {type(error).__name__}") from None
    if not isinstance(document, list):
        raise Malformed("not a JSON array")
    elements, position = [], text.index("[") + 1
    for _ in document:
        # It is an array, so nothing but space and one comma stands between two elements.
        while text[position] in _BETWEEN:
            position += 1
        start = position
        _, position = _DECODER.raw_decode(text, start)
        elements.append(text[start:position].encode())
    return elements


def at(document: object, *path: str | int) -> Any:
    """What stands at the path (keys, positions), or None where it leads nowhere."""
    for step in path:
        if isinstance(step, str):
            document = document.get(step) if isinstance(document, dict) else None
        else:
            inside = isinstance(document, list) and step < len(document)
            document = document[step] if inside else None  # type: ignore[index]
    return document


def text_at(document: object, *path: str | int) -> str:
    """The text or number at the path as text; anything else is empty."""
    value = at(document, *path)
    if isinstance(value, str):
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else ""


def list_at(document: object, *path: str | int) -> list[Any]:
    """The list at the path; anything else is an empty one."""
    value = at(document, *path)
    return value if isinstance(value, list) else []


def as_json(text: str | bytes) -> dict[str, Any]:
    """The object a provider sends as JSON inside of a text, or an empty one."""
    try:
        return decode(text)
    except Malformed:
        return {}


def elements(body: bytes) -> list[bytes]:
    """The elements of the JSON array in `body`, or the one JSON object; raises `Malformed`."""
    if body.lstrip().startswith(b"["):
        return split(body)
    decode(body)
    return [body]


def header(headers: Iterable[Any], name: str) -> str:
    """The first header of that name among objects with `name` and `value`, or an empty text."""
    found = (text_at(entry, "value") for entry in headers if text_at(entry, "name").lower() == name)
    return next(found, "")


def plain_id(value: object, body: bytes) -> str:
    """A provider's id of an event if it is one that can be stored, else the hash of the event."""
    text = value if isinstance(value, str) else ""
    return text if _PLAIN_ID.fullmatch(text) else hash_id("body", body)


def hash_id(kind: str, *identity: object) -> str:
    """`kind:hash`, the hash over what makes two calls the same."""
    plain = [part.hex() if isinstance(part, bytes) else part for part in identity]
    written = json.dumps(plain, sort_keys=True)
    return f"{kind}:{hashlib.sha256(written.encode()).hexdigest()}"


def own_uuid(metadata: object, *message_ids: object) -> UUID | None:
    """Our message, by the metadata we sent along or by a Message-ID of ours."""
    try:
        return UUID(text_at(metadata, "message_uuid"))
    except ValueError:
        found = (uuid_in_message_id(text) for text in message_ids if isinstance(text, str))
        return next((uuid for uuid in found if uuid is not None), None)


def as_address(text: object) -> Address | None:
    """The address a provider names, or None when it is none that could be mailed."""
    if not isinstance(text, str):
        return None
    named = _NAMED.fullmatch(text)
    try:
        return parse_address(named[1] if named else text)
    except InvalidAddress:
        return None


def as_moment(value: object, otherwise: datetime) -> datetime:
    """A provider's time: ISO 8601, or a number of seconds or milliseconds since 1970, also as
    text. Without a zone it is UTC. What is no time, or none at which this provider can have had
    mail of ours, is `otherwise`, the time at which it told."""
    try:
        moment = _moment(value)
    except (ValueError, OverflowError):
        return otherwise
    if moment is None or moment.year < _FIRST_YEAR or moment > otherwise + _AHEAD:
        return otherwise
    return moment


def _moment(value: object) -> datetime | None:
    if isinstance(value, str) and not _is_number(value):
        return from_iso8601(value.strip())
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        number = float(value)
        return from_milliseconds(math.floor(number if number >= _MILLISECONDS else number * 1000))
    return None


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).strip().isdigit()


def as_detail(*parts: object) -> str:
    """A provider's free texts as one that PostgreSQL can store."""
    text = " · ".join(part for part in parts if isinstance(part, str) and part)
    return text.encode(errors="replace").decode().replace("\x00", "")[:_MAX_DETAIL]


def as_esp_id(value: object) -> str:
    """A provider's id of a message as it is stored with the message."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text.encode(errors="replace").decode().replace("\x00", "")[:200]

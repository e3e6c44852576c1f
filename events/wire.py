"""The native event format: untrusted JSON in, `EventIn` or a list of problems out. Pure."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from common.clock import from_milliseconds

MAX_ID = 200
MAX_TYPE = 200
MAX_DEPTH = 32
MAX_BYTES = 256 * 1024
"""Of one event, encoded."""
MAX_NUMBER = 10**21
# 10^11 ms is March 1973; a number below it is a time in seconds sent by mistake.
_SECONDS_BELOW = 100_000_000_000

_FIELDS = frozenset({"event_id", "event_type", "user_id", "timestamp", "payload", "metadata"})


@dataclass(frozen=True, slots=True)
class EventIn:
    """A well-formed event. `body_hash` is equal for two posts of the same content, whatever the
    order of their keys."""

    event_id: str
    type: str
    user_id: str
    occurred_at: datetime
    payload: dict[str, Any]
    metadata: dict[str, Any]
    body_hash: bytes


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with an event: where (`payload.order`) and what."""

    path: str
    message: str

    def as_detail(self) -> dict[str, str]:
        return {"path": self.path, "message": self.message}


def parse_event(document: Any) -> EventIn | list[Problem]:
    """The event in a decoded JSON document, or everything that is wrong with its shape."""
    if not isinstance(document, dict):
        return [Problem("", "must be an object")]
    problems = [Problem(str(key), "unknown field") for key in document if key not in _FIELDS]
    event_id = _text(document, "event_id", MAX_ID, problems)
    event_type = _text(document, "event_type", MAX_TYPE, problems)
    user_id = _text(document, "user_id", MAX_ID, problems, required=False)
    occurred_at = _timestamp(document, problems)
    payload = _mapping(document, "payload", problems, required=True)
    metadata = _mapping(document, "metadata", problems, required=False)
    if problems or occurred_at is None:
        return problems
    encoded = msgspec.json.encode(document, order="deterministic")
    if len(encoded) > MAX_BYTES:
        return [Problem("", f"is larger than {MAX_BYTES} bytes")]
    digest = hashlib.sha256(encoded).digest()
    return EventIn(event_id, event_type, user_id, occurred_at, payload, metadata, digest)


def _text(
    document: dict[str, Any],
    name: str,
    longest: int,
    problems: list[Problem],
    *,
    required: bool = True,
) -> str:
    value = document.get(name)
    if value is None and not required:
        return ""
    if value is None:
        problems.append(Problem(name, "is required"))
    elif not isinstance(value, str):
        problems.append(Problem(name, "must be a string"))
    elif required and not value.strip():
        problems.append(Problem(name, "must not be empty"))
    elif len(value) > longest:
        problems.append(Problem(name, f"must have at most {longest} characters"))
    elif any(ord(character) < 32 for character in value):
        problems.append(Problem(name, "must not contain control characters"))
    else:
        return value
    return ""


def _timestamp(document: dict[str, Any], problems: list[Problem]) -> datetime | None:
    value = document.get("timestamp")
    if value is None:
        problems.append(Problem("timestamp", "is required"))
    elif not isinstance(value, int) or isinstance(value, bool):
        problems.append(Problem("timestamp", "must be a Unix time in milliseconds, an integer"))
    elif 0 < value < _SECONDS_BELOW:
        problems.append(Problem("timestamp", "is in milliseconds; this looks like seconds"))
    else:
        try:
            return from_milliseconds(value)
        except ValueError as error:
            problems.append(Problem("timestamp", str(error)))
    return None


def _mapping(
    document: dict[str, Any], name: str, problems: list[Problem], *, required: bool
) -> dict[str, Any]:
    value = document.get(name)
    if value is None and not required:
        return {}
    if value is None:
        problems.append(Problem(name, "is required"))
    elif not isinstance(value, dict):
        problems.append(Problem(name, "must be an object"))
    elif fault := _fault(value, MAX_DEPTH):
        problems.append(Problem(name, fault))
    else:
        return value
    return {}


def _fault(value: Any, levels: int) -> str:
    """What makes a value unfit for storing, or nothing."""
    if isinstance(value, dict | list):
        if levels == 0:
            return f"must not be nested deeper than {MAX_DEPTH} levels"
        items = value.values() if isinstance(value, dict) else value
        return next(filter(None, (_fault(item, levels - 1) for item in items)), "")
    # PostgreSQL writes 1e308 out with 309 digits: five bytes of JSON become sixty times as many.
    if isinstance(value, int | float) and abs(value) > MAX_NUMBER:
        return "contains a number beyond ±10^21; send it as text"
    return ""

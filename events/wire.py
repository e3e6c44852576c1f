"""What every wire format is read into: an event, or a refusal that says what is wrong. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec

from events.states import RefusalCode

MAX_ID = 200
MAX_TYPE = 200
MAX_DEPTH = 32
MAX_BYTES = 256 * 1024
"""Of one event, encoded."""
MAX_NUMBER = 10**21
MIN_NUMBER = 1e-21
MAX_KEYS = 200
"""In one object."""
MAX_KEY = 100
MAX_TEXT = 32 * 1024
"""Characters in one value."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FUTURE_AFTER = timedelta(minutes=5)
"""A clock that is further ahead is wrong; the event counts as one of now."""


class Problem(msgspec.Struct, frozen=True):
    """One thing wrong with an event: where (`payload.order`, a JSON pointer for a schema's) and
    what. Never the value itself: it may be personal."""

    path: str
    message: str

    def below(self, parent: str) -> "Problem":
        """The same problem seen from the list that holds the event."""
        if self.path.startswith("/"):
            return Problem(f"/{parent.replace('.', '/')}{self.path}", self.message)
        return Problem(f"{parent}.{self.path}" if self.path else parent, self.message)

    def as_detail(self) -> dict[str, str]:
        return {"path": self.path, "message": self.message}


# A struct, not a dataclass: making a frozen dataclass of this size costs as much as parsing one.
class EventIn(msgspec.Struct, frozen=True):
    """A well-formed event. `body_hash` is equal for two posts of the same content, whatever the
    order of their keys. `stated_at` is what the producer said when `occurred_at` differs from it,
    because its clock was corrected or not believed. `received_at` is when it first reached us: a
    refused event that is let in later is no later for it."""

    source: str
    event_id: str
    type: str
    user_id: str
    occurred_at: datetime
    stated_at: datetime | None
    received_at: datetime
    payload: dict[str, Any]
    metadata: dict[str, Any]
    body_hash: bytes

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the same event."""
        return self.source, self.event_id

    @property
    def producer(self) -> str:
        """The source of its API key. What follows the slash is made up by whoever posts, so
        nothing is counted by it."""
        return self.source.partition("/")[0]


class Refusal(msgspec.Struct, frozen=True):
    """An event that is not taken, and why. `body`, where the producer was told "fine" and will
    not send it again, is what was posted; it is kept for replay."""

    code: RefusalCode
    problems: tuple[Problem, ...]
    source: str
    event_id: str = ""
    type: str = ""
    body: dict[str, Any] | None = None
    """In the native format, though parts may be missing."""

    @property
    def user_id(self) -> str:
        """Whose content `body` holds, as far as it says so."""
        return str((self.body or {}).get("user_id", ""))

    @property
    def metadata(self) -> dict[str, Any]:
        """That of `body`."""
        return dict((self.body or {}).get("metadata", {}))


class Recorded(StrEnum):
    """What became of an event that was let in."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    """The id is known with another body."""


Item = EventIn | Refusal
Outcome = Recorded | Refusal


def build_event(
    *,
    source: str,
    event_id: str,
    type: str,
    user_id: str,
    stated_at: datetime,
    received_at: datetime,
    payload: dict[str, Any],
    metadata: dict[str, Any],
    content: Any,
    ahead_by: timedelta = timedelta(),
) -> Item:
    """The event, its size and its clock checked. `content` is what has to be equal for a second
    post to be the same one; `ahead_by` is how far the producer's clock is known to be ahead."""
    encoded = msgspec.json.encode(content, order="deterministic")
    if len(encoded) > MAX_BYTES:
        problem = Problem("", f"is larger than {MAX_BYTES} bytes")
        return invalid([problem], source=source, event_id=event_id, type=type)
    occurred_at = corrected(stated_at, ahead_by)
    if occurred_at > received_at + FUTURE_AFTER:
        occurred_at = received_at
    return EventIn(
        source,
        event_id,
        type,
        user_id,
        occurred_at,
        None if occurred_at == stated_at else stated_at,
        received_at,
        payload,
        metadata,
        hashlib.sha256(encoded).digest(),
    )


def corrected(stated_at: datetime, ahead_by: timedelta) -> datetime:
    """The time by a clock that is not ahead; never before 1970 nor after what can be written."""
    if not ahead_by:
        return stated_at
    try:
        return max(stated_at - ahead_by, _EPOCH)
    except OverflowError:
        return stated_at


def invalid(
    problems: Sequence[Problem], *, source: str, event_id: str = "", type: str = ""
) -> Refusal:
    """The refusal of an event whose shape is wrong."""
    return Refusal(RefusalCode.INVALID, tuple(problems[:100]), source, event_id, type)


def identifier(document: Any, name: str) -> str:
    """The text at `name` for an answer that speaks of a broken event, or nothing."""
    value = document.get(name) if isinstance(document, dict) else None
    return value[:MAX_ID] if isinstance(value, str) else ""


def read_text(
    document: Mapping[str, Any],
    name: str,
    problems: list[Problem],
    *,
    longest: int = MAX_ID,
    required: bool = True,
) -> str:
    """The text at `name`; a missing, empty, overlong or control character is a problem."""
    value = document.get(name)
    if value is None and not required:
        return ""
    if value is None:
        problems.append(Problem(name, "is required"))
    elif not isinstance(value, str):
        problems.append(Problem(name, "must be a string"))
    elif fault := text_fault(value, longest=longest, required=required):
        problems.append(Problem(name, fault))
    else:
        return value
    return ""


def text_fault(value: str, *, longest: int = MAX_ID, required: bool = True) -> str:
    """What makes a text unfit for an id or a name, or nothing."""
    if required and not value.strip():
        return "must not be empty"
    if len(value) > longest:
        return f"must have at most {longest} characters"
    # All that `isprintable` doubts is looked at: spaces and emoji joiners are fine.
    if not value.isprintable() and any(ord(c) < 32 or 127 <= ord(c) < 160 for c in value):
        return "must not contain control characters"
    return ""


def read_object(
    document: Mapping[str, Any], name: str, problems: list[Problem], *, required: bool = True
) -> dict[str, Any]:
    """The object at `name`, within the limits of this module."""
    value = document.get(name)
    if value is None and not required:
        return {}
    if value is None:
        problems.append(Problem(name, "is required"))
    elif not isinstance(value, dict):
        problems.append(Problem(name, "must be an object"))
    elif problem := tree_problem(value):
        problems.append(problem.below(name))
    else:
        return value
    return {}


def tree_problem(value: Any, levels: int = MAX_DEPTH) -> Problem | None:
    """What makes a value unfit for storing, or None."""
    if isinstance(value, dict):
        return _object_problem(value, levels)
    if isinstance(value, list):
        return _list_problem(value, levels)
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            return Problem("", f"must have at most {MAX_TEXT} characters")
    # PostgreSQL writes 1e308 and 1e-308 out with all their digits: five bytes of JSON become
    # sixty times as many.
    elif isinstance(value, int | float):
        if abs(value) > MAX_NUMBER:
            return Problem("", "is a number beyond ±10^21; send it as text")
        if 0 < abs(value) < MIN_NUMBER:
            return Problem("", "is a number closer to 0 than 10^-21; send it as text")
    return None


_ONLY_LEN = frozenset({bool, type(None)})


def _object_problem(value: dict[str, Any], levels: int) -> Problem | None:
    if levels == 0:
        return Problem("", f"must not be nested deeper than {MAX_DEPTH} levels")
    if len(value) > MAX_KEYS:
        return Problem("", f"must have at most {MAX_KEYS} keys, not {len(value)}")
    for key, item in value.items():
        if not key or len(key) > MAX_KEY:
            return Problem(f"{key[:20]}…" if key else "", f"keys have 1 to {MAX_KEY} characters")
        # Most values are short texts; a call each would be most of the time spent here.
        kind = type(item)
        if (kind is str and len(item) <= MAX_TEXT) or kind in _ONLY_LEN:
            continue
        if problem := tree_problem(item, levels - 1):
            return problem.below(key)
    return None


def _list_problem(value: list[Any], levels: int) -> Problem | None:
    if levels == 0:
        return Problem("", f"must not be nested deeper than {MAX_DEPTH} levels")
    for index, item in enumerate(value):
        if problem := tree_problem(item, levels - 1):
            return problem.below(str(index))
    return None

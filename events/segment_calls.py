"""One call of Segment's as an event. Pure, but for ids it assigns.

| call | type | payload |
|---|---|---|
| track | its `event` | its `properties` |
| identify | `identify` | `traits` over `context.traits`, and a `name` made of first and last name |
| page, screen | `page`, `screen` | its `properties`, `category`, and its name as `page_name` |
| group | `group` | `groupId`, `traits` |
| alias | `alias` | `previousId` |

Everything else stays as it is and becomes the metadata: `context`, `anonymousId`, `channel`, …
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from common.clock import from_iso8601, to_milliseconds
from common.ids import uuid7
from events.wire import (
    MAX_BYTES,
    MAX_ID,
    EventIn,
    Item,
    Problem,
    build_event,
    corrected,
    invalid,
    read_text,
    tree_problem,
)

KINDS = ("track", "identify", "page", "screen", "group", "alias")

# A secret, what the frame says, and where else Segment would send the event.
_NOT_KEPT = frozenset({"writeKey", "sentAt", "receivedAt", "integrations"})

_BELIEVED_SKEW = timedelta(hours=24)
"""Every mistake about time zones is smaller; a clock that is further off tells nothing."""


class Frame(msgspec.Struct, frozen=True):
    """What the calls of one request share."""

    source: str
    received_at: datetime
    sent_at: datetime | None
    context: Mapping[str, Any] = {}

    @property
    def ahead_by(self) -> timedelta:
        """How far the sender's clock is ahead of ours, as far as that can be believed."""
        skew = self.sent_at - self.received_at if self.sent_at else timedelta()
        return skew if abs(skew) <= _BELIEVED_SKEW else timedelta()


def read_call(document: Any, frame: Frame) -> Item:
    """The event, or a refusal whose body is as much of it as could be read."""
    if not isinstance(document, dict):
        return invalid([Problem("", "must be an object")], source=frame.source)
    call = _Call(document, frame)
    draft = _draft(call)
    item = _item(draft, call)
    if isinstance(item, EventIn):
        return item
    return msgspec.structs.replace(item, body=_storable(draft, is_whole=call.is_whole))


class _Draft(msgspec.Struct, frozen=True):
    """An event in the making; what could not be read is empty."""

    event_id: str
    type: str
    user_id: str
    stated_at: datetime
    ahead_by: timedelta
    payload: dict[str, Any]
    metadata: dict[str, Any]


class _Call:
    """A call while it is read. What is taken out of `rest` has found its place in the event; what
    stays becomes its metadata. `null` is the same as nothing. `is_whole`: its content was read."""

    def __init__(self, document: Mapping[str, Any], frame: Frame) -> None:
        self.frame = frame
        self.rest = {
            name: value
            for name, value in document.items()
            if value is not None and name not in _NOT_KEPT
        }
        if frame.context:
            self.rest["context"] = {**frame.context, **_object(self.rest, "context")}
        self.content = dict(self.rest)
        self.problems: list[Problem] = []
        self.is_whole = True

    def refuse(self, name: str, fault: str) -> None:
        self.problems.append(Problem(name, fault))

    def take_kind(self) -> str:
        kind = self.rest.get("type")
        if not isinstance(kind, str) or kind not in KINDS:
            self.refuse("type", f"must be one of {', '.join(KINDS)}")
            return ""
        del self.rest["type"]
        return kind

    def take_text(self, name: str, *, required: bool = False) -> str:
        """A blank one is the same as none. Numbers count as text: many ids are some."""
        if type(self.rest.get(name)) is int:
            self.rest[name] = str(self.rest[name])
        before = len(self.problems)
        text = read_text(self.rest, name, self.problems, required=required)
        if len(self.problems) == before:
            self.rest.pop(name, None)
        return text if text.strip() else ""

    def take_person(self) -> str:
        user_id = self.take_text("userId")
        # An unfit one is still there, and has been spoken of.
        if not user_id and "userId" not in self.rest and not self.rest.get("anonymousId"):
            self.refuse("userId", "is required where there is no anonymousId")
        return user_id

    def take_time(self) -> datetime | None:
        name = "timestamp" if "timestamp" in self.rest else "originalTimestamp"
        value = self.rest.get(name)
        if value is None:
            return None
        try:
            if not isinstance(value, str):
                raise ValueError("must be a text in ISO 8601")
            moment = from_iso8601(value)
        except ValueError as error:
            self.refuse(name, str(error))
            return None
        del self.rest[name]
        return moment

    def take_object(self, name: str) -> dict[str, Any]:
        value = self.rest.get(name, {})
        if not isinstance(value, dict):
            self.refuse(name, "must be an object")
            self.is_whole = False
            return {}
        self.rest.pop(name, None)
        return value

    def checked(self, value: dict[str, Any], name: str) -> dict[str, Any]:
        """The object, or an empty one when it is beyond the limits of an event."""
        if problem := tree_problem(value):
            self.problems.append(problem.below(name) if name else problem)
            self.is_whole = False
            return {}
        return value

    def metadata(self) -> dict[str, Any]:
        """The rest, and the region where the intake looks for it."""
        metadata = self.checked(self.rest, "")
        if self.frame.sent_at:
            metadata = {"sentAt": self.frame.sent_at.isoformat(), **metadata}
        region = _object(self.rest, "context").get("region")
        if region is None:
            return metadata
        # Whatever it is: what is no text is nobody's region, and not for us to leave out.
        is_text = isinstance(region, str) and len(region) <= MAX_ID
        return {**metadata, "region": region if is_text else "?"}


def _draft(call: _Call) -> _Draft:
    kind = call.take_kind()
    event_id = call.take_text("messageId") or str(uuid7())
    event_type = call.take_text("event", required=True) if kind == "track" else kind
    user_id = call.take_person()
    stated_at = call.take_time()
    return _Draft(
        event_id,
        event_type,
        user_id,
        stated_at or call.frame.received_at,
        call.frame.ahead_by if stated_at else timedelta(),
        _take_payload(kind, call),
        call.metadata(),
    )


def _take_payload(kind: str, call: _Call) -> dict[str, Any]:
    """What the call says, so placed that the default identity paths find a person's name and
    address, and take neither a page nor a company for a person."""
    match kind:
        case "track":
            return call.checked(call.take_object("properties"), "properties")
        case "identify":
            return call.checked(_take_traits(call), "traits")
        case "page" | "screen":
            return call.checked(_take_page(kind, call), "properties")
        case "group":
            group_id = call.take_text("groupId", required=True)
            traits = call.checked(call.take_object("traits"), "traits")
            return {"groupId": group_id, "traits": traits}
        case "alias":
            return {"previousId": call.take_text("previousId", required=True)}
        case _:
            return {}


def _take_traits(call: _Call) -> dict[str, Any]:
    # RudderStack's libraries put them into the context.
    traits = {**_object(_object(call.rest, "context"), "traits"), **call.take_object("traits")}
    parts = (traits.get("firstName"), traits.get("lastName"))
    name = " ".join(part for part in parts if isinstance(part, str) and part)
    return {"name": name, **traits} if name else traits


def _take_page(kind: str, call: _Call) -> dict[str, Any]:
    properties = call.take_object("properties")
    own = {name: value for name, value in properties.items() if name != "name"}
    said = {
        "category": call.rest.pop("category", None),
        f"{kind}_name": call.rest.pop("name", properties.get("name")),
    }
    return {**{name: value for name, value in said.items() if value is not None}, **own}


def _item(draft: _Draft, call: _Call) -> Item:
    source = call.frame.source
    if call.problems:
        return invalid(call.problems, source=source, event_id=draft.event_id, type=draft.type)
    return build_event(
        source=source,
        event_id=draft.event_id,
        type=draft.type,
        user_id=draft.user_id,
        stated_at=draft.stated_at,
        received_at=call.frame.received_at,
        payload=draft.payload,
        metadata=draft.metadata,
        content=call.content,
        ahead_by=draft.ahead_by,
    )


def _storable(draft: _Draft, *, is_whole: bool) -> dict[str, Any]:
    """The draft in the native format. Without a payload, so that no replay takes half an event for
    one, when the content was not understood or is too much to keep."""
    body: dict[str, Any] = {
        "event_id": draft.event_id,
        "event_type": draft.type,
        "user_id": draft.user_id,
        "timestamp": to_milliseconds(corrected(draft.stated_at, draft.ahead_by)),
        "metadata": draft.metadata,
    }
    if is_whole:
        body["payload"] = draft.payload
    if len(msgspec.json.encode(body)) > MAX_BYTES:
        body.pop("payload", None)
        # What remains may not be held either where its region may not.
        body["metadata"] = {k: v for k, v in draft.metadata.items() if k == "region"}
    return body


def _object(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}

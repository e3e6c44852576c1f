"""CloudEvents 1.0 over HTTP, binary, structured and batched: `POST /cloudevents`. Pure.

A parser of our own: the official one takes no batches and lets through text that is not UTF-8.
"""

import base64
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from common.api import ApiError, decode_json
from common.clock import from_iso8601
from common.ids import shortened
from events import native
from events.directory import Producer
from events.exchange import Post, Reading
from events.wire import (
    MAX_TEXT,
    Item,
    Problem,
    build_event,
    identifier,
    invalid,
    read_text,
    text_fault,
    tree_problem,
)

MAX_BODY = native.MAX_BODY
REPLAYS = False

_STRUCTURED = "application/cloudevents"
_BATCHED = "application/cloudevents-batch"
_PREFIX = "ce-"

_MAX_SOURCE = 100
_MAX_ATTRIBUTES = 64 * 1024
"""Bytes of an event's attributes; its data may have `events.wire.MAX_BYTES` besides."""

_NAME = re.compile(r"[a-z0-9]+")
_JSON = re.compile(r"[^/]+/(?:[^/]+\+)?json")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")

_READ = frozenset({"specversion", "id", "type", "source"})
_TEXTS = frozenset({"subject", "datacontenttype", "dataschema", "time"})
_MAPPED = frozenset({"specversion", "id", "type", "time"})
"""What has a place of its own in an event; the other attributes are its metadata."""

_NOT_AN_OBJECT = "must be a JSON object: it becomes the payload of an event"


def token(post: Post) -> str:
    """The key stands in the header only."""
    return ""


def read(post: Post, producer: Producer) -> Reading:
    """The event or the batch. The Content-Type says which mode it is; a batch's begins like a
    structured event's."""
    media_type = _media_type(post.headers.get("content-type", ""))
    if media_type.startswith(_BATCHED):
        _refuse_unless_json(media_type, _BATCHED)
        return _read_batch(decode_json(post.body), producer, post.received_at)
    if media_type.startswith(_STRUCTURED):
        _refuse_unless_json(media_type, _STRUCTURED)
        item = _read_structured(decode_json(post.body), producer, post.received_at)
    else:
        item = _read_binary(post, producer)
    return Reading([item], native.answer_one)


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _refuse_unless_json(media_type: str, prefix: str) -> None:
    if media_type != f"{prefix}+json":
        raise ApiError(
            "unsupported_media_type",
            f"Of the event formats only {prefix}+json is read.",
            status_code=415,
        )


def _read_batch(documents: Any, producer: Producer, received_at: datetime) -> Reading:
    if not isinstance(documents, list):
        raise ApiError("invalid", "A batch must be a list.")
    native.refuse_too_many(documents, native.MAX_BATCH)
    return native.reading_of_list(
        [_read_structured(document, producer, received_at) for document in documents]
    )


def _read_structured(document: Any, producer: Producer, received_at: datetime) -> Item:
    if not isinstance(document, dict):
        return invalid([Problem("", "must be an object")], source=producer.source)
    problems: list[Problem] = []
    attributes = {
        name: value
        for name, value in document.items()
        if value is not None and name not in ("data", "data_base64")
    }
    data = document.get("data")
    if (encoded := document.get("data_base64")) is not None:
        if data is not None:
            problems.append(Problem("data_base64", "must not stand beside data"))
        data = _from_base64(encoded, problems)
    return _read_event(attributes, data, producer, received_at, problems)


def _from_base64(encoded: Any, problems: list[Problem]) -> Any:
    """The JSON in there, whatever the `datacontenttype` says: nothing else can be used."""
    try:
        return decode_json(base64.b64decode(encoded, validate=True))
    except (TypeError, ValueError):
        problems.append(Problem("data_base64", "is not valid Base64"))
    except ApiError:
        problems.append(Problem("data_base64", _NOT_AN_OBJECT))
    return None


def _read_binary(post: Post, producer: Producer) -> Item:
    problems: list[Problem] = []
    attributes = _from_headers(post.headers, problems)
    if "datacontenttype" in attributes:
        problems.append(Problem("datacontenttype", "is said by Content-Type, not by a header"))
    content_type = post.headers.get("content-type", "")
    if content_type:
        attributes["datacontenttype"] = content_type
    if post.body and content_type and not _JSON.fullmatch(_media_type(content_type)):
        raise ApiError(
            "unsupported_media_type",
            "Data of this Content-Type are not read; send a JSON object as application/json.",
            status_code=415,
            details=[{"path": "data", "message": _NOT_AN_OBJECT}],
        )
    data = decode_json(post.body) if post.body else None
    return _read_event(attributes, data, producer, post.received_at, problems)


def _from_headers(headers: Mapping[str, str], problems: list[Problem]) -> dict[str, Any]:
    attributes = {}
    for header, value in headers.items():
        if header.startswith(_PREFIX):
            name = header.removeprefix(_PREFIX)
            try:
                attributes[name] = decode_header(value)
            except ValueError:
                problems.append(Problem(name[:50], "is not valid UTF-8, percent-encoded"))
    return attributes


def decode_header(value: str) -> str:
    """The attribute in a header's value: without the quotes old senders put around it, and after
    one round of percent-decoding. Raises `ValueError` for what is not UTF-8."""
    if quoted := _QUOTED.fullmatch(value):
        value = _ESCAPED.sub(r"\1", quoted[1])
    return unquote_to_bytes(value.encode("latin-1")).decode()


def _read_event(
    attributes: Mapping[str, Any],
    data: Any,
    producer: Producer,
    received_at: datetime,
    problems: list[Problem],
) -> Item:
    event_id = read_text(attributes, "id", problems)
    event_type = read_text(attributes, "type", problems)
    source = read_text(attributes, "source", problems, longest=MAX_TEXT)
    problems += _problems(attributes)
    stated_at = _time(attributes, problems)
    payload = _payload(data, problems)
    metadata = _metadata(attributes, problems)
    if problems:
        return invalid(
            problems,
            source=producer.source,
            event_id=identifier(attributes, "id"),
            type=identifier(attributes, "type"),
        )
    subject = attributes.get("subject")
    return build_event(
        source=_namespace(producer, source),
        event_id=event_id,
        type=event_type,
        user_id=_user_id(subject, payload.get("userId"), payload.get("user_id")),
        stated_at=stated_at or received_at,
        received_at=received_at,
        payload=payload,
        metadata=metadata,
        # Extensions change on the way, from one delivery of an event to the next.
        content=[event_type, subject, stated_at, payload],
    )


def _problems(attributes: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the attributes that are not read one by one."""
    problems = [
        Problem(name[:50], fault)
        for name, value in attributes.items()
        if name not in _READ and (fault := _fault(name, value))
    ]
    if attributes.get("specversion") != "1.0":
        problems.append(Problem("specversion", 'must be "1.0"'))
    return problems


def _fault(name: str, value: Any) -> str:
    if not _NAME.fullmatch(name) or name == "data":
        return "is no attribute name: they consist of a-z and 0-9"
    if isinstance(value, str):
        return text_fault(value, longest=MAX_TEXT, required=name in _TEXTS)
    if name in _TEXTS:
        return "must be a string"
    return "" if isinstance(value, int) else "must be a string, a whole number or a boolean"


def _time(attributes: Mapping[str, Any], problems: list[Problem]) -> datetime | None:
    value = attributes.get("time")
    if not isinstance(value, str):
        return None
    try:
        return from_iso8601(value)
    except ValueError as error:
        problems.append(Problem("time", str(error)))
        return None


def _payload(data: Any, problems: list[Problem]) -> dict[str, Any]:
    if data is None:
        return {}
    if not isinstance(data, dict):
        problems.append(Problem("data", _NOT_AN_OBJECT))
        return {}
    if problem := tree_problem(data):
        problems.append(problem.below("data"))
    return data


def _metadata(attributes: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    metadata = {name: value for name, value in attributes.items() if name not in _MAPPED}
    if problem := tree_problem(metadata):
        problems.append(problem)
    elif len(msgspec.json.encode(metadata)) > _MAX_ATTRIBUTES:
        problems.append(Problem("", f"has more than {_MAX_ATTRIBUTES} bytes of attributes"))
    return metadata


def _namespace(producer: Producer, source: str) -> str:
    """Where the id is unique: a CloudEvent is the same as another when source and id are."""
    left = _MAX_SOURCE - len(producer.source) - 1
    return f"{producer.source}/{shortened(source, left)}"


def _user_id(*candidates: Any) -> str:
    """The first one that can be an id."""
    for value in candidates:
        text = str(value) if type(value) is int else value
        if isinstance(text, str) and not text_fault(text):
            return text
    return ""

"""The native event format, also that of the brokers: `POST /api/v1/events`. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from common.api import ApiError, decode_json
from common.clock import from_milliseconds, to_milliseconds
from events.directory import Producer
from events.exchange import Post, Reading, Reply
from events.states import RefusalCode
from events.wire import (
    EventIn,
    Item,
    Outcome,
    Problem,
    Recorded,
    Refusal,
    build_event,
    identifier,
    invalid,
    read_object,
    read_text,
)

MAX_BATCH = 1_000
MAX_BODY = 5 * 1024 * 1024
REPLAYS = True

# 10^11 ms is March 1973; a number below it is a time in seconds sent by mistake.
_SECONDS_BELOW = 100_000_000_000

_FIELDS = frozenset({"event_id", "event_type", "user_id", "timestamp", "payload", "metadata"})


def parse_event(document: Any, *, source: str, received_at: datetime) -> Item:
    """The event in the document, or everything that is wrong with its shape."""
    if not isinstance(document, dict):
        return invalid([Problem("", "must be an object")], source=source)
    problems = []
    if not document.keys() <= _FIELDS:
        problems += [
            Problem(name[:50], "unknown field") for name in document if name not in _FIELDS
        ]
    event_id = read_text(document, "event_id", problems)
    event_type = read_text(document, "event_type", problems)
    user_id = read_text(document, "user_id", problems, required=False)
    stated_at = _timestamp(document, problems)
    payload = read_object(document, "payload", problems)
    metadata = read_object(document, "metadata", problems, required=False)
    if problems or stated_at is None:
        return invalid(
            problems,
            source=source,
            event_id=identifier(document, "event_id"),
            type=identifier(document, "event_type"),
        )
    return build_event(
        source=source,
        event_id=event_id,
        type=event_type,
        user_id=user_id,
        stated_at=stated_at,
        received_at=received_at,
        payload=payload,
        metadata=metadata,
        # As it is understood, so that a field left out and an empty one are the same event.
        content=[event_id, event_type, user_id, stated_at, payload, metadata],
    )


def as_document(event: EventIn) -> dict[str, Any]:
    """The event as it would be posted here: what `parse_event` reads, for a replay."""
    return {
        "event_id": event.event_id,
        "event_type": event.type,
        "user_id": event.user_id,
        "timestamp": to_milliseconds(event.occurred_at),
        "payload": event.payload,
        "metadata": event.metadata,
    }


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


def token(post: Post) -> str:
    """The key stands in the header only."""
    return ""


def read(post: Post, producer: Producer) -> Reading:
    """One event, a list of them, or `{"events": […]}`."""
    document = decode_json(post.body)
    if isinstance(document, dict) and document.keys() == {"events"}:
        document = document["events"]
        if not isinstance(document, list):
            problem = Problem("events", "must be a list")
            raise _error(invalid([problem], source=producer.source))
    if isinstance(document, list):
        return _read_list(document, producer, post.received_at)
    item = parse_event(document, source=producer.source, received_at=post.received_at)
    return Reading([item], answer_one)


def _read_list(documents: list[Any], producer: Producer, received_at: datetime) -> Reading:
    if not documents:
        raise ApiError("invalid", "The list is empty.")
    refuse_too_many(documents, MAX_BATCH)
    return reading_of_list(
        [
            parse_event(document, source=producer.source, received_at=received_at)
            for document in documents
        ]
    )


def refuse_too_many(documents: Sequence[Any], most: int) -> None:
    """Raises `ApiError` for a list of more than `most` events."""
    if len(documents) > most:
        message = f"At most {most} events in one request, not {len(documents)}."
        raise ApiError("too_many", message, status_code=413)


def reading_of_list(items: Sequence[Item]) -> Reading:
    """What a list holds, to be answered item by item; raises `ApiError` when all of it is
    malformed."""
    if items and all(isinstance(item, Refusal) for item in items):
        raise _error(_all_of(items), message="No event in the list is well-formed.")
    return Reading(items, _answer_list)


def answer_one(items: Sequence[Item], outcomes: Sequence[Outcome]) -> Reply:
    """202 for an event that is kept or was before; raises `ApiError` for one that is refused."""
    (item,), (outcome,) = items, outcomes
    if isinstance(outcome, Refusal):
        raise _error(outcome)
    if outcome is Recorded.CONFLICT:
        raise ApiError(
            "conflict",
            "This event_id was already accepted with another body.",
            status_code=409,
            details=[{"path": "event_id", "message": "known with another body"}],
        )
    # The same answer for the first post and for every repetition; the header tells them apart.
    headers = {"idempotent_replayed": "true"} if outcome is Recorded.DUPLICATE else {}
    return Reply.of(202, {"event_id": item.event_id, "status": "accepted"}, **headers)


def _answer_list(items: Sequence[Item], outcomes: Sequence[Outcome]) -> Reply:
    results = [
        _result(index, item.event_id, outcome)
        for index, (item, outcome) in enumerate(zip(items, outcomes, strict=True))
    ]
    return Reply.of(202, {"results": results})


def _result(index: int, event_id: str, outcome: Outcome) -> dict[str, Any]:
    if outcome is Recorded.CONFLICT:
        return {"event_id": event_id, "status": "invalid", "code": "conflict"}
    if isinstance(outcome, Recorded):
        return {"event_id": event_id, "status": outcome.value}
    return {
        "event_id": event_id or None,
        "status": "invalid",
        "code": outcome.code.value,
        "details": [problem.below(str(index)).as_detail() for problem in outcome.problems],
    }


def _all_of(items: Sequence[Item]) -> Refusal:
    problems = [
        problem.below(str(index))
        for index, item in enumerate(items)
        if isinstance(item, Refusal)
        for problem in item.problems
    ]
    return invalid(problems, source="")


def _error(refusal: Refusal, *, message: str = "") -> ApiError:
    first = refusal.problems[0]
    return ApiError(
        refusal.code.value,
        message or f"{first.path or 'event'}: {first.message}",
        status_code=400 if refusal.code is RefusalCode.INVALID else 422,
        details=[problem.as_detail() for problem in refusal.problems],
    )

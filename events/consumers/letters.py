"""What goes into the dead-letter queue: the message as it was, and why, in headers."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from django.db import connection

from common.api import ApiError, decode_json
from common.clock import now
from events import residency
from events.consumers.broker import Delivery, Letter
from events.states import RefusalCode
from events.wire import Problem, Refusal, identifier

# Headers count towards a broker's limits, and ten problems are enough to mend a producer.
_MOST_PROBLEMS = 10
_LONGEST_TEXT = 200


def dead_letters(refused: Sequence[tuple[Delivery, Refusal]]) -> list[Letter]:
    """One letter per refused message. Without the body where its content may not be held here,
    and then there is nothing in the headers but the event's id and the reason."""
    permitted = _permitted(refused)
    return [
        Letter(delivery, delivery.body if may_hold else b"", _headers(delivery, refusal))
        for (delivery, refusal), may_hold in zip(refused, permitted, strict=True)
    ]


def _headers(delivery: Delivery, refusal: Refusal) -> dict[str, str]:
    headers = {
        "emailauto-code": refusal.code.value,
        "emailauto-problems": _problems(refusal.problems),
        "emailauto-event-id": _printable(refusal.event_id),
        "emailauto-source": refusal.source,
        "emailauto-at": now().isoformat(timespec="milliseconds"),
        **delivery.origin,
    }
    return {name: text for name, text in headers.items() if text}


def _problems(problems: Sequence[Problem]) -> str:
    details = [
        {name: _printable(text) for name, text in problem.as_detail().items()}
        for problem in problems[:_MOST_PROBLEMS]
    ]
    return msgspec.json.encode(details).decode()


def _printable(text: str) -> str:
    """What any broker takes in a header: paths are keys of the message, and may hold anything."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)[
        :_LONGEST_TEXT
    ]


def _permitted(refused: Sequence[tuple[Delivery, Refusal]]) -> list[bool]:
    """Whether each body may be held here. Events that were refused for another reason may be
    those of people whose content may not: what can be read of them decides."""
    if not residency.is_restricted():
        return [True] * len(refused)
    documents = [_document(delivery.body) for delivery, _ in refused]
    people = [identifier(document, "user_id") for document in documents]
    regions = _known_regions({person for person in people if person})
    return [
        refusal.code is not RefusalCode.RESIDENCY
        and residency.may_hold(_region(document), regions.get(person, ""))
        for (_, refusal), document, person in zip(refused, documents, people, strict=True)
    ]


def _known_regions(people: set[str]) -> dict[str, str]:
    query = residency.region_query()
    if not people or not query:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(query, [sorted(people)])
        return dict(cursor.fetchall())


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        document = decode_json(body)
    except ApiError:
        return {}
    return document if isinstance(document, dict) else {}


def _region(document: Mapping[str, Any]) -> str:
    metadata = document.get("metadata")
    return residency.named_region(metadata) if isinstance(metadata, dict) else ""

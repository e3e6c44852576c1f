"""Stored events of a type as samples: what a new schema would have refused, and what a first one
could look like."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from events.models import Event
from events.schemas import compile_schema
from events.suggestions import suggest_schema
from events.wire import Problem

_TRIED = 1_000
_READ = 500
_READ_BYTES = 8 * 1024 * 1024
_SHOWN = 5
_CHUNK = 100


@dataclass(frozen=True, slots=True)
class Trial:
    """How many of the newest events were tried, how many would fail, and some of those: event id
    and its first problem."""

    tried: int
    failed: int
    examples: list[tuple[str, Problem]]


def try_schema(type_name: str, schema: Mapping[str, Any]) -> Trial:
    """Hold the schema against the last 1,000 events of the type; raises `InvalidSchema`."""
    check = compile_schema(schema)
    tried = failed = 0
    examples: list[tuple[str, Problem]] = []
    for event_id, payload in _newest(type_name, _TRIED):
        tried += 1
        if problems := check(payload):
            failed += 1
            if len(examples) < _SHOWN:
                examples.append((event_id, problems[0]))
    return Trial(tried, failed, examples)


def schema_from_events(type_name: str) -> dict[str, Any]:
    """A schema that the last 500 events of the type fit, or as many of them as have 8 MB of
    payload; empty when there are none."""
    payloads: list[dict[str, Any]] = []
    room = _READ_BYTES
    for _, payload in _newest(type_name, _READ):
        payloads.append(payload)
        room -= len(msgspec.json.encode(payload))
        if room < 0:
            break
    return suggest_schema(payloads) if payloads else {}


def _newest(type_name: str, most: int) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = Event.objects.filter(type=type_name).order_by("-pk").values_list("event_id", "payload")
    # In chunks: a thousand payloads may be 256 MB.
    return rows[:most].iterator(chunk_size=_CHUNK)

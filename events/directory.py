"""What the intake goes by, remembered for a second: API keys, event types, names seen before.

An intake that asked PostgreSQL for each request would spend more on asking than on storing. The
price is that a revoked key or a new schema takes a second to be noticed by every process.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Generic, TypeVar

import msgspec
from django.conf import settings
from django.db import connection

from events.auth import find_key
from events.models import EventType, SeenType
from events.schemas import Check, InvalidSchema, compile_schema
from events.wire import Problem

logger = logging.getLogger(__name__)

K = TypeVar("K")
V = TypeVar("V")

_MOST_ENTRIES = 10_000


class Remembered(Generic[K, V]):
    """Answers of `load`, each believed for `settings.INTAKE_CACHE_SECONDS`. Thread-safe: two
    threads may load the same answer, neither sees half of one."""

    def __init__(self, load: Callable[[K], V]) -> None:
        self._load = load
        self._entries: dict[K, tuple[float, V]] = {}

    def peek(self, key: K, default: V) -> V:
        """The answer if it is still believed; never asks the database."""
        entry = self._entries.get(key)
        if entry is None or time.monotonic() - entry[0] >= settings.INTAKE_CACHE_SECONDS:
            return default
        return entry[1]

    def get(self, key: K) -> V:
        """The answer, loaded when it is not known or too old."""
        entry = self._entries.get(key)
        if entry is not None and time.monotonic() - entry[0] < settings.INTAKE_CACHE_SECONDS:
            return entry[1]
        return self.fresh(key)

    def fresh(self, key: K) -> V:
        """The answer as it is now, for those who have just changed it."""
        moment = time.monotonic()
        value = self._load(key)
        if len(self._entries) >= _MOST_ENTRIES:  # a flood of made-up keys
            self._entries.clear()
        self._entries[key] = (moment, value)
        return value


class Producer(msgspec.Struct, frozen=True):
    """Who posts: what an API key allows. `key` is its public part."""

    key: str
    source: str
    scopes: frozenset[str]
    rate_limit: int


class Rules(msgspec.Struct, frozen=True):
    """What admission decides by: the registered types with their schemas (None: no schema), and
    the unregistered names each source has used."""

    schemas: Mapping[str, Check | None] = {}
    seen: Mapping[str, frozenset[str]] = {}
    version: Any = None


def _find_producer(token: str) -> Producer | None:
    key = find_key(token)
    if key is None:
        return None
    return Producer(key.prefix, key.source, frozenset(key.scopes), key.rate_limit)


# By what PostgreSQL writes into each row it changes: no clock, and no writer that forgets.
_VERSION = """
    SELECT (SELECT sum(xmin::text::bigint) FROM events_eventtype),
           (SELECT count(*) FROM events_eventtype),
           (SELECT max(id) FROM events_seentype), (SELECT count(*) FROM events_seentype)
"""

_newest = Rules()


def _load_rules(_key: None) -> Rules:
    """One query when nothing has changed, three when something has."""
    global _newest
    with connection.cursor() as cursor:
        cursor.execute(_VERSION)
        version = cursor.fetchone()
    if version != _newest.version:
        schemas = _schemas()
        _newest = Rules(schemas, _seen(schemas), version)
    return _newest


def _schemas() -> dict[str, Check | None]:
    return {
        name: _check(name, schema)
        for name, schema in EventType.objects.values_list("name", "schema")
    }


def _check(name: str, schema: Mapping[str, Any]) -> Check | None:
    """A schema that came into the table past the form must not stop the intake of all the others:
    its own events are refused, and kept where their producer cannot be told."""
    try:
        return compile_schema(schema) if schema else None
    except InvalidSchema as error:
        logger.error("unusable schema", extra={"event_type": name, "reason": error.message})
        return lambda _payload: (Problem("", "the schema of this type cannot be used"),)


def _seen(registered: Collection[str]) -> dict[str, frozenset[str]]:
    names: dict[str, set[str]] = {}
    for source, name in SeenType.objects.values_list("source", "name"):
        if name not in registered:  # a registered one no longer takes up room
            names.setdefault(source, set()).add(name)
    return {source: frozenset(used) for source, used in names.items()}


producers: Remembered[str, Producer | None] = Remembered(_find_producer)
"""By the token as it was sent."""
rules: Remembered[None, Rules] = Remembered(_load_rules)
"""Under the one key None."""

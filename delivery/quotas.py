"""Limits per hour and per day, counted in PostgreSQL: whatever happens to workers or to Redis, no
more is handed over than was reserved here, in the transaction that commits the hand-overs.

Hours and days are UTC's, so that a day has 24 hours on every day of the year. What is reserved
counts for the window in which the hand-over was committed; a crash keeps it counted.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction

from delivery.models import Provider

HOUR, DAY = "hour", "day"


@dataclass(frozen=True, slots=True, order=True)
class Limit:
    """At most so many hand-overs per window under this name."""

    name: str
    window: str
    most: int


@dataclass(frozen=True, slots=True)
class Reserved:
    """One hand-over, counted against a limit's window."""

    name: str
    starts_at: datetime


@dataclass(frozen=True, slots=True)
class Full:
    """The limit that is used up, and the seconds until it begins anew."""

    limit: Limit
    seconds: float


Grant = list[Reserved] | Full


def limits_of(provider: Provider) -> list[Limit]:
    """The limits of a hand-over through this provider."""
    caps = ((HOUR, provider.hourly_cap), (DAY, provider.daily_cap))
    return [
        Limit(f"provider:{provider.key}:{window}", window, cap)
        for window, cap in caps
        if cap is not None
    ]


def reserve(wanted: Sequence[Sequence[Limit]]) -> list[Grant]:
    """Count each message, in this order, against all its limits, or against none of them when one
    is used up. Inside the caller's transaction, which holds the counters until it ends. Three
    statements, whatever the number; none when there are no limits."""
    limits = sorted({limit for of_one in wanted for limit in of_one})
    if not limits:
        return [[] for _ in wanted]
    counters = _locked(limits)
    taken: Counter[str] = Counter()
    grants: list[Grant] = []
    for of_one in wanted:
        full = [
            Full(limit, counters[limit.name].seconds_left)
            for limit in of_one
            if counters[limit.name].used + taken[limit.name] >= limit.most
        ]
        if full:
            grants.append(max(full, key=lambda one: one.seconds))
            continue
        taken.update(limit.name for limit in of_one)
        grants.append([Reserved(limit.name, counters[limit.name].starts_at) for limit in of_one])
    _add({(name, counters[name].starts_at): count for name, count in taken.items()})
    return grants


class Usage:
    """What was used of this hour's and this day's limits when it was looked at. Not binding, only
    `reserve` is; it saves the work for mails that could not leave anyway."""

    def __init__(self) -> None:
        self._used: Counter[str] = Counter()
        self._seconds_left: dict[str, float] = {}

    def load(self) -> "Usage":
        """One query."""
        with connection.cursor() as cursor:
            cursor.execute(_USED_NOW)
            for name, used, hour, day in cursor.fetchall():
                self._seconds_left = {HOUR: float(hour), DAY: float(day)}
                if name is not None:
                    self._used[name] = used
        return self

    def full(self, limits: Sequence[Limit]) -> Full | None:
        """The limit that is used up for longest, if any is."""
        spent = [
            Full(limit, self._seconds_left[limit.window])
            for limit in limits
            if self._used[limit.name] >= limit.most
        ]
        return max(spent, key=lambda one: one.seconds, default=None)

    def count(self, limits: Sequence[Limit]) -> None:
        """One more is on its way."""
        self._used.update(limit.name for limit in limits)


def give_back(reserved: Iterable[Reserved]) -> None:
    """For hand-overs that were not begun. Two statements."""
    counts = Counter((one.name, one.starts_at) for one in reserved)
    if not counts:
        return
    # In the order of `reserve`, or the two wait for each other.
    with transaction.atomic(), connection.cursor() as cursor:
        names = [name for name, _ in counts]
        cursor.execute(_LOCK_SOME, (names, [starts_at for _, starts_at in counts]))
        _add({key: -count for key, count in counts.items()})


@dataclass(frozen=True, slots=True)
class _Counter:
    used: int
    starts_at: datetime
    seconds_left: float


# The transaction's time throughout: a window that ends in between would not be found again.
_OPEN = """
    INSERT INTO delivery_quota AS q (name, starts_at, most, used)
    SELECT w.name, date_trunc(w.unit, transaction_timestamp(), 'UTC'), w.most, 0
    FROM unnest(%s::text[], %s::text[], %s::int[]) AS w (name, unit, most)
    ON CONFLICT (name, starts_at) DO UPDATE SET most = excluded.most WHERE q.most <> excluded.most
"""

_LOCK = """
    SELECT q.name, q.used, q.starts_at,
           extract(epoch FROM q.starts_at + ('1 ' || w.unit)::interval - transaction_timestamp())
    FROM delivery_quota AS q
    JOIN unnest(%s::text[], %s::text[]) AS w (name, unit)
      ON q.name = w.name AND q.starts_at = date_trunc(w.unit, transaction_timestamp(), 'UTC')
    ORDER BY q.name FOR UPDATE OF q
"""

_LOCK_SOME = """
    SELECT FROM delivery_quota AS q
    JOIN unnest(%s::text[], %s::timestamptz[]) AS w (name, starts_at)
      ON q.name = w.name AND q.starts_at = w.starts_at
    ORDER BY q.name, q.starts_at FOR UPDATE OF q
"""

_USED_NOW = """
    WITH windows AS (
        SELECT date_trunc('hour', statement_timestamp(), 'UTC') AS hour,
               date_trunc('day', statement_timestamp(), 'UTC') AS day)
    SELECT q.name, q.used,
           extract(epoch FROM w.hour + interval '1 hour' - statement_timestamp()),
           extract(epoch FROM w.day + interval '1 day' - statement_timestamp())
    FROM windows AS w
    LEFT JOIN delivery_quota AS q
      ON q.starts_at = CASE WHEN q.name LIKE '%:hour' THEN w.hour ELSE w.day END
     AND q.starts_at >= w.day
"""

_ADD = """
    UPDATE delivery_quota AS q SET used = greatest(0, q.used + a.count)
    FROM unnest(%s::text[], %s::timestamptz[], %s::int[]) AS a (name, starts_at, count)
    WHERE q.name = a.name AND q.starts_at = a.starts_at
"""


def _locked(limits: Sequence[Limit]) -> dict[str, _Counter]:
    windows = [[limit.name for limit in limits], [limit.window for limit in limits]]
    with connection.cursor() as cursor:
        cursor.execute(_OPEN, [*windows, [limit.most for limit in limits]])
        cursor.execute(_LOCK, windows)
        return {
            name: _Counter(used, starts_at, float(left))
            for name, used, starts_at, left in cursor.fetchall()
        }


def _add(counts: Mapping[tuple[str, datetime], int]) -> None:
    if not counts:
        return
    keys = sorted(counts)
    with connection.cursor() as cursor:
        cursor.execute(
            _ADD,
            [
                [name for name, _ in keys],
                [starts_at for _, starts_at in keys],
                [counts[key] for key in keys],
            ],
        )

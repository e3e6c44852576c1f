"""Posting events: ours against a DRF view, and against ourselves with a million events stored."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
from psycopg import sql

from bench.comparison import P50, P99, Comparison, Sample, Series, percentile
from bench.database import Database
from bench.events import document
from bench.load import Job, Load
from bench.processes import BenchError, run
from bench.report import say
from bench.scale import Scale
from bench.sides import Side, drf_intake, emailauto_intake, emailauto_stack

_SINGLE_EVENTS = 10_000
_BULK_EVENTS = 20_000
_GROWTH_EVENTS = 60_000
_BATCHES = (100, 1_000)
_STORED = 1_000_000
_CONNECTIONS = 16
_RATE = "events/s"

# As the engine leaves them, each with an id as random as those that will be posted.
_FILL = """
    INSERT INTO events_event
        (source, event_id, type, user_id, occurred_at, payload, metadata, body_hash, state, reason,
         outcome, contact_id, processed_at, attempts, lease_owner, error, note)
    SELECT 'api', md5(n::text)::uuid::text, 'OrderCompleted', 'user-' || n % 200000,
           now() - n * interval '1 second', {payload}, {metadata}, sha256(n::text::bytea),
           'processed', '', '[]', n % 200000, now(), 1, '', '', ''
    FROM generate_series(1, {count}) AS n
"""


def intake_single(scale: Scale, logs: Path) -> list[Comparison]:
    """One event per request."""
    count = scale.of(_SINGLE_EVENTS)
    with _ours_and_drf(logs) as (ours, create, _):
        title = f"One event per request, {_CONNECTIONS} connections"
        return [_compare(title, [ours, create], events=count, batch=1, rounds=scale.rounds)]


def intake_bulk(scale: Scale, logs: Path) -> list[Comparison]:
    """Lists of events. `many=True` stores one by one; `bulk_create` is shown beside it."""
    with _ours_and_drf(logs) as sides:
        return _compare_lists(sides, scale.of(_BULK_EVENTS), scale.rounds)


def growth(scale: Scale, logs: Path) -> list[Comparison]:
    """Lists of events into a full inbox and into an empty one."""
    stored = scale.of_stored(_STORED)
    with (
        emailauto_stack(logs) as ours,
        emailauto_stack(logs, like=ours[0]) as another,
        emailauto_intake(*ours, name=f"{stored:,} stored") as full,
        emailauto_intake(*another, name="empty") as empty,
    ):
        _fill(full.database, stored)
        full = replace(full, is_emptied=False)
        return _compare_lists([full, empty], scale.of(_GROWTH_EVENTS), scale.rounds)


@contextlib.contextmanager
def _ours_and_drf(logs: Path) -> Iterator[tuple[Side, Side, Side]]:
    with (
        emailauto_stack(logs) as (database, workplace),
        emailauto_intake(database, workplace) as ours,
        drf_intake(logs) as (create, bulk_create),
    ):
        yield ours, create, bulk_create


def _compare_lists(sides: Sequence[Side], events: int, rounds: int) -> list[Comparison]:
    return [
        _compare(
            f"Lists of {batch:,} events, {_CONNECTIONS} connections",
            sides,
            events=events,
            batch=batch,
            rounds=rounds,
        )
        for batch in _BATCHES
    ]


def _compare(
    title: str, sides: Sequence[Side], *, events: int, batch: int, rounds: int
) -> Comparison:
    """All sides in every round, in turns first and last: a machine that gets slower or faster
    meanwhile favours none."""
    # Every thread of every process has to have had its first request.
    warm_up = min(events, max(events // 10, _CONNECTIONS * batch))
    for side in sides:
        measure(side, f"{batch}-warm-up", events=warm_up, batch=batch)
    samples: dict[str, list[Sample]] = {side.name: [] for side in sides}
    for number in range(rounds):
        say(f"{title}: round {number + 1} of {rounds}")
        for side in reversed(sides) if number % 2 else sides:
            sample = measure(side, f"{batch}-{number}", events=events, batch=batch)
            samples[side.name].append(sample)
    ours, baseline, *others = (Series(name, taken) for name, taken in samples.items())
    return Comparison(title, _RATE, events, ours, baseline, others)


def measure(side: Side, prefix: str, *, events: int, batch: int) -> Sample:
    """Post the events and count them in the table; raises `BenchError` when one is missing."""
    if side.is_emptied:
        side.database.execute(f"TRUNCATE {side.table} CASCADE")
    # Or one side would be writing out what the other has dirtied.
    side.database.execute("CHECKPOINT")
    before = side.database.count(side.table)
    job = Job(
        side.port, side.path, side.authorization, prefix, events, batch, connections=_CONNECTIONS
    )
    load = post(job)
    if (stored := side.database.count(side.table) - before) != events:
        raise BenchError(f"{side.name} answered for {events} events and stored {stored}")
    return _sample(load, events)


def post(job: Job) -> Load:
    """Have the load generator do the job; raises `BenchError` unless all is answered by a 2xx."""
    output = run("-m", "bench.load", env=os.environ, stdin=msgspec.json.encode(job))
    return msgspec.json.decode(output, type=Load)


def _sample(load: Load, events: int) -> Sample:
    seconds = (max(load.answered_ns) - min(load.sent_ns)) / 1e9
    times = zip(load.sent_ns, load.answered_ns, strict=True)
    taken_ms = [(answered - sent) / 1e6 for sent, answered in times]
    return {
        _RATE: events / seconds,
        P50: percentile(taken_ms, 50),
        P99: percentile(taken_ms, 99),
    }


def _fill(database: Database, count: int) -> None:
    say(f"Storing {count:,} events …")
    event = document("stored", 1)
    statement = sql.SQL(_FILL).format(
        payload=msgspec.json.encode(event["payload"]).decode(),
        metadata=msgspec.json.encode(event["metadata"]).decode(),
        count=count,
    )
    database.execute(statement)
    database.execute("VACUUM ANALYZE events_event")

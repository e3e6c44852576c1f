"""Webhooks of providers at a steady rate, and as fast as they are taken."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import msgspec
import psycopg

from bench.comparison import GOAL, P50, P99, Comparison, Sample, Series, percentile
from bench.database import Database
from bench.intake import post
from bench.load import Call, Job
from bench.processes import BenchError, run, running, serving
from bench.report import say
from bench.scale import Scale
from bench.sides import emailauto_stack
from bench.webhooks import PER_MAIL, SECRETS, Told, arrays, shuffled, singles, story
from emailauto.embedded.server import free_port
from emailauto.processes import Process
from emailauto.supervisor import programs
from emailauto.supervisor.programs import Workplace

_RATE = 2_000
_SECONDS = 30
_ARRAY = 100
_GOAL_MS = 1_000.0
_UNIT = "receipts/s"
_DRAINED = "drained s"
_POSTED = 10_000
_CONNECTIONS = 64
_PATIENCE_SECONDS = 240.0
_THREADS = 4
_MOMENTS = ("delivered", "opened", "clicked", "bounced", "complained")

Mail = tuple[UUID, str]


def receipts(scale: Scale, logs: Path) -> list[Comparison]:
    """2,000 receipts a second with the worker at its work, against the goal; then single calls as
    fast as they are taken, without a worker, against our own DRF view on threads."""
    with emailauto_stack(logs, SECRETS) as (database, workplace):
        run("-m", "bench.mails", str(scale.of(_RATE * _SECONDS // PER_MAIL)), env=workplace.env)
        database.execute("VACUUM ANALYZE")
        mails = _mails(database)
        with _ours(workplace) as port:
            with running(programs.worker(workplace)):
                paced = [
                    _at_rate(database, port, mails, logs, batch, scale) for batch in (1, _ARRAY)
                ]
            with _drf(workplace) as theirs:
                return [*paced, _as_fast(database, (port, theirs), mails, logs, scale)]


def _at_rate(
    database: Database, port: int, mails: Sequence[Mail], logs: Path, batch: int, scale: Scale
) -> Comparison:
    what = "in calls of one" if batch == 1 else f"in arrays of {batch}"
    title = f"{_RATE:,} receipts a second {what} for {_SECONDS * scale.part:.0f} s"
    samples: list[Sample] = []
    for number in range(scale.rounds):
        say(f"{title}: round {number + 1} of {scale.rounds}")
        samples.append(_paced(database, port, mails, logs, batch))
    goal = [{P99: _GOAL_MS}] * scale.rounds
    return Comparison(
        *(title, P99, len(mails) * PER_MAIL),
        *(Series("emailauto", samples), Series(GOAL, goal)),
        is_less_better=True,
    )


def _paced(database: Database, port: int, mails: Sequence[Mail], logs: Path, batch: int) -> Sample:
    start = _reset(database)
    told = _told(mails, start)
    calls = singles(told) if batch == 1 else arrays(told, batch)
    load = post(_job(port, calls, logs, rate=_RATE / batch))
    waiting = _count(database, "state = 'pending'")
    drained = _until_drained(database) - max(load.answered_ns) / 1e9
    _require_exact(database, told)
    pairs = zip(load.sent_ns, load.answered_ns, strict=True)
    taken = [(answered - sent) / 1e6 for sent, answered in pairs]
    return {
        P99: percentile(taken, 99),
        P50: percentile(taken, 50),
        "max ms": max(taken),
        "left rows": waiting,
        _DRAINED: max(0.0, drained),
    }


def _as_fast(
    database: Database, ports: tuple[int, int], mails: Sequence[Mail], logs: Path, scale: Scale
) -> Comparison:
    title = f"Calls of one, {_CONNECTIONS} connections, no worker"
    samples: tuple[list[Sample], list[Sample]] = ([], [])
    for number in range(scale.rounds + 1):  # the first warms up
        say(f"{title}: round {number} of {scale.rounds}")
        sides = list(zip(ports, samples, strict=True))
        for port, taken in reversed(sides) if number % 2 else sides:
            sample = _flat_out(database, port, mails, logs, scale.of(_POSTED))
            if number:
                taken.append(sample)
    ours, theirs = samples
    count = scale.of(_POSTED)
    return Comparison(title, _UNIT, count, Series("emailauto", ours), Series("DRF view", theirs))


def _flat_out(
    database: Database, port: int, mails: Sequence[Mail], logs: Path, count: int
) -> Sample:
    told = _told(mails, _reset(database))[:count]
    load = post(_job(port, singles(told), logs))
    if (kept := _count(database, "true")) != len(told):
        raise BenchError(f"{len(told)} receipts were posted and {kept} kept")
    pairs = zip(load.sent_ns, load.answered_ns, strict=True)
    taken = [(answered - sent) / 1e6 for sent, answered in pairs]
    seconds = (max(load.answered_ns) - min(load.sent_ns)) / 1e9
    return {
        _UNIT: len(load.sent_ns) / seconds,
        P50: percentile(taken, 50),
        P99: percentile(taken, 99),
    }


def _job(port: int, calls: Sequence[Call], logs: Path, *, rate: float = 0.0) -> Job:
    path = logs / "calls"
    path.write_bytes(msgspec.msgpack.encode(calls))
    return Job(port, calls=str(path), connections=_CONNECTIONS, rate=rate)


def _told(mails: Sequence[Mail], start: datetime) -> list[Told]:
    stories = (story(*mail, number, start) for number, mail in enumerate(mails))
    return shuffled(thing for told in stories for thing in told)


def _reset(database: Database) -> datetime:
    """Nobody has told anything yet. Returns a moment no earlier story has."""
    nothing = ", ".join(f"{kind}_at = NULL" for kind in _MOMENTS)
    for table in ("webhooks_receipt", "suppression_suppression", "delivery_bounce"):
        database.execute(f"TRUNCATE {table} CASCADE")
    database.execute(f"UPDATE delivery_message SET {nothing}")  # noqa: S608 - literals above
    database.execute("VACUUM ANALYZE delivery_message")
    database.execute("CHECKPOINT")
    return datetime.now(UTC).replace(microsecond=0) - timedelta(days=20)


def _until_drained(database: Database) -> float:
    """When (`time.monotonic`) nothing was pending any more."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while left := _count(database, "state = 'pending'"):
        if time.monotonic() > deadline:
            raise BenchError(f"{left} receipts are still waiting")
        time.sleep(0.1)
    return time.monotonic()


def _require_exact(database: Database, told: Sequence[Told]) -> None:
    """Every moment on its message and no other, an address suppressed for each that has to be."""
    wanted: dict[tuple[UUID, str], datetime] = {
        (thing.message, thing.kind): thing.at for thing in told if thing.kind in _MOMENTS
    }
    ends = [thing for thing in told if thing.kind in ("bounced", "complained")]
    suppressed = _count(database, "true", "suppression_suppression")
    applied = _count(database, "state = 'applied'")
    if (applied, suppressed) != (len(told), len(ends)):
        raise BenchError(
            f"{applied} of {len(told)} applied, {suppressed} of {len(ends)} suppressed"
        )
    if _moments(database) != wanted:
        raise BenchError("the messages do not show what was told")


def _moments(database: Database) -> dict[tuple[UUID, str], datetime]:
    columns = ", ".join(f"{kind}_at" for kind in _MOMENTS)
    with psycopg.connect(database.url) as connection:
        query = f"SELECT id, {columns} FROM delivery_message"  # noqa: S608 - literals above
        rows = connection.execute(query.encode()).fetchall()
    return {
        (message, kind): at
        for message, *moments in rows
        for kind, at in zip(_MOMENTS, moments, strict=True)
        if at is not None
    }


def _mails(database: Database) -> list[Mail]:
    with psycopg.connect(database.url) as connection:
        query = "SELECT id, email FROM delivery_message WHERE dedupe_key LIKE 'bench:%' ORDER BY id"
        return [(message, email) for message, email in connection.execute(query).fetchall()]


def _count(database: Database, condition: str, table: str = "webhooks_receipt") -> int:
    with psycopg.connect(database.url) as connection:
        query = f"SELECT count(*) FROM {table} WHERE {condition}"  # noqa: S608 - all literals above
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


@contextlib.contextmanager
def _ours(workplace: Workplace) -> Iterator[int]:
    """The port of the web server, by the command line of `make run`."""
    port = free_port()
    with serving(programs.web(workplace, host="127.0.0.1", port=port), port):
        yield port


@contextlib.contextmanager
def _drf(workplace: Workplace) -> Iterator[int]:
    """The port of the same code under WSGI, where a DRF view on a thread takes the calls."""
    port = free_port()
    with serving(_wsgi(workplace, port), port):
        yield port


def _wsgi(workplace: Workplace, port: int) -> Process:
    ours = programs.web(workplace, host="127.0.0.1", port=port).argv
    return workplace.process(
        "drf",
        *("-m", "granian", "--interface", "wsgi", "emailauto.wsgi:application"),
        *("--host", "127.0.0.1", "--port", str(port), "--no-ws", "--no-access-log"),
        *("--workers", ours[ours.index("--workers") + 1]),
        *("--blocking-threads", str(_THREADS)),
    )

"""From rows in the inbox to mails that are recorded as sent, against a queue that only sends."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from bench.accepted import insist_on_each
from bench.comparison import Comparison, Sample, Series
from bench.database import Database, fresh_database
from bench.events import address, document
from bench.naive import naive_project
from bench.processes import CHECKOUT, BenchError, own, run, running
from bench.report import say
from bench.scale import Scale
from bench.sides import emailauto_stack
from emailauto.embedded.server import free_port
from emailauto.supervisor import programs
from emailauto.supervisor.programs import Workplace

_MAILS = 10_000
# Their rate does not depend on how many there are, and 10,000 would take them minutes.
_NAIVE_MAILS = 1_000
_RATE = "mails/s"
_PATIENCE_SECONDS = 240.0
_OURS = "emailauto, events to sent"
_THEIRS = "django-post-office, sending only"
_TASKS = "a Celery task per mail"
_BATCH = "a script for cron"

_EVENTS = (
    "COPY events_event (source, event_id, type, user_id, occurred_at, payload, metadata, body_hash,"
    " state, reason, outcome, attempts, lease_owner, error, note) FROM STDIN"
)
_MAILS_OF_POST_OFFICE = (
    'COPY post_office_email (from_email, "to", cc, bcc, subject, message, html_message, status,'
    " priority, created, last_updated, headers, backend_alias) FROM STDIN"
)
_QUEUED, _MEDIUM = 2, 2
_SENT = 0


def pipeline(scale: Scale, logs: Path) -> list[Comparison]:
    """Orders in the inbox become receipts, each to a person of its own who is not known yet, until
    all are recorded as sent. The worker of `make run` on two cores, against django-post-office's
    best setting, whose mails are rendered and queued before the clock starts. Beside it, with fewer
    mails: a Celery task for each, and a script that cron runs. One sink for all."""
    count, few = scale.of(_MAILS), scale.of(_NAIVE_MAILS)
    port, accepted = free_port(), logs / "accepted"
    with (
        running(own("sink", logs, "-m", "bench.sink", str(port), str(accepted))),
        _emailauto(logs, port, accepted) as ours,
        _post_office(logs, port, accepted, wording := _wording(ours)) as theirs,
        naive_project(logs, port, accepted, wording) as naive,
    ):
        sides: dict[str, Callable[[str], float]] = {
            _OURS: lambda prefix: count / ours.seconds(prefix, count),
            _THEIRS: lambda prefix: count / theirs.seconds(prefix, count),
            f"{_TASKS} ({few:,} mails)": lambda prefix: naive.tasks(f"{prefix}-task", few),
            f"{_BATCH} ({few:,} mails)": lambda prefix: naive.batch(f"{prefix}-batch", few),
        }
        samples: dict[str, list[Sample]] = {name: [] for name in sides}
        for number in range(scale.rounds):
            say(f"{count:,} mails: round {number + 1} of {scale.rounds}")
            for name in reversed(sides) if number % 2 else sides:
                samples[name].append({_RATE: sides[name](f"r{number}")})
    ours_, theirs_, *others = (Series(name, taken) for name, taken in samples.items())
    return [Comparison(f"{count:,} mails over SMTP", _RATE, count, ours_, theirs_, others)]


@dataclass(frozen=True, slots=True)
class _Ours:
    database: Database
    workplace: Workplace
    accepted: Path

    def seconds(self, prefix: str, count: int) -> float:
        """From the commit of the events, upon which the bell rings, to the last mail that is
        recorded as sent. Nobody sees them before."""
        tables = "events_event, delivery_message, contacts_contact"
        self.database.execute(f"TRUNCATE {tables} CASCADE")
        rows = (_event_row(f"{prefix}-ours", n) for n in range(count))
        with _bell(self.workplace) as ring, psycopg.connect(self.database.url) as connection:
            _copy(connection, _EVENTS, rows)
            self.database.execute("CHECKPOINT")
            (begun,) = connection.execute("SELECT clock_timestamp()").fetchone() or (None,)
            assert isinstance(begun, datetime)
            connection.commit()
            ring()
            ended = self._end(count)
        insist_on_each(self.accepted, f"{prefix}-ours", count)
        return (ended - begun).total_seconds()

    def _end(self, count: int) -> datetime:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        with psycopg.connect(self.database.url, autocommit=True) as connection:
            while time.monotonic() < deadline:
                query = "SELECT count(*), max(sent_at) FROM delivery_message WHERE state = 'sent'"
                sent, last = connection.execute(query).fetchone() or (0, None)
                if sent == count:
                    assert isinstance(last, datetime)
                    return last
                time.sleep(0.2)
            query = "SELECT state, reason, count(*) FROM delivery_message GROUP BY 1, 2"
            raise BenchError(f"not sent: {connection.execute(query).fetchall()}")


@dataclass(frozen=True, slots=True)
class _PostOffice:
    database: Database
    env: Mapping[str, str]
    accepted: Path
    wording: Mapping[str, Any] = field(repr=False)

    def seconds(self, prefix: str, count: int) -> float:
        """As it says itself; the start of its process is not in it."""
        self.database.execute("TRUNCATE post_office_email CASCADE")
        rows = (self._row(f"{prefix}-theirs", n) for n in range(count))
        with psycopg.connect(self.database.url) as connection:
            _copy(connection, _MAILS_OF_POST_OFFICE, rows)
        self.database.execute("VACUUM ANALYZE post_office_email")
        self.database.execute("CHECKPOINT")
        output = run("-m", "bench.baselines.postoffice.send", env=self.env)
        insist_on_each(self.accepted, f"{prefix}-theirs", count)
        with psycopg.connect(self.database.url) as connection:
            query = "SELECT count(*) FROM post_office_email WHERE status = %s"
            if connection.execute(query, [_SENT]).fetchone() != (count,):
                raise BenchError("django-post-office left mails")
        return float(output)

    def _row(self, prefix: str, number: int) -> tuple[Any, ...]:
        words, moment = self.wording, datetime.now(UTC)
        return (
            *(words["from_email"], address(prefix, number), "", ""),
            *(words["subject"], words["text"], words["html"], _QUEUED, _MEDIUM, moment, moment),
            *(msgspec.json.encode(words["headers"]).decode(), ""),
        )


@contextlib.contextmanager
def _emailauto(logs: Path, port: int, accepted: Path) -> Iterator[_Ours]:
    url = f"smtp://127.0.0.1:{port}"
    with emailauto_stack(logs, EMAIL_URL=url) as (database, workplace):
        started = time.monotonic()
        with running(programs.worker(workplace)):
            ours = _Ours(database, workplace, accepted)
            # A worker that is up, and every process of which has had work.
            ours.seconds("warm-up", 400)
            say(f"our worker is up and warm after {time.monotonic() - started:.1f} s")
            yield ours


@contextlib.contextmanager
def _post_office(
    logs: Path, port: int, accepted: Path, wording: Mapping[str, Any]
) -> Iterator[_PostOffice]:
    with fresh_database("postoffice") as database:
        # Its lock is a file in the directory for temporary ones.
        places = {"DATABASE_URL": database.url, "SINK_PORT": str(port), "TMPDIR": str(logs)}
        env = {**os.environ, **places}
        run("-m", "bench.baselines.postoffice.prepare", env=env)
        yield _PostOffice(database, env, accepted, wording)


def _wording(ours: _Ours) -> dict[str, Any]:
    """Of a mail of ours, as `bench.wording` tells it."""
    wording: dict[str, Any] = msgspec.json.decode(
        run("-m", "bench.wording", env=ours.workplace.env)
    )
    return wording


def _event_row(prefix: str, number: int) -> tuple[Any, ...]:
    event = document(prefix, number)
    body = msgspec.json.encode(event)
    return (
        *("api", event["event_id"], event["event_type"], event["user_id"], datetime.now(UTC)),
        msgspec.json.encode(event["payload"]).decode(),
        msgspec.json.encode(event["metadata"]).decode(),
        *(body[:32], "pending", "", "[]", 0, "", "", ""),
    )


@contextlib.contextmanager
def _bell(workplace: Workplace) -> Iterator[Callable[[], None]]:
    """A process that is up and rings when it is told to: a new one would take its time."""
    command = [sys.executable, "-m", "bench.ring", "events"]
    with subprocess.Popen(
        command, cwd=CHECKOUT, env=workplace.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as ringer:
        assert ringer.stdin is not None
        assert ringer.stdout is not None
        if ringer.stdout.readline() != b"ready\n":
            raise BenchError("the bell does not ring")
        yield ringer.stdin.close


def _copy(
    connection: psycopg.Connection[Any], statement: str, rows: Iterator[tuple[Any, ...]]
) -> None:
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        for row in rows:
            copy.write_row(row)

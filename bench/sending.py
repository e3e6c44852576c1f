"""Our worker, from rows in the inbox to mails that are recorded as sent."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from bench.accepted import insist_on_each
from bench.database import Database, copy_rows
from bench.events import document
from bench.processes import CHECKOUT, BenchError, running
from bench.report import say
from bench.sides import emailauto_stack
from emailauto.processes import Child
from emailauto.supervisor import programs
from emailauto.supervisor.programs import Workplace

_PATIENCE_SECONDS = 240.0
_RING_SECONDS = 3.0
_EVENTS = (
    "COPY events_event (source, event_id, type, user_id, occurred_at, payload, metadata, body_hash,"
    " state, reason, outcome, attempts, lease_owner, error, note) FROM STDIN"
)


@dataclass(frozen=True, slots=True)
class Sending:
    """The stack with a sink that writes to `accepted`; its worker comes and goes."""

    database: Database
    workplace: Workplace
    accepted: Path
    keeps_contacts: bool = False
    """Whether the contacts of one run are there in the next."""

    def seconds(self, prefix: str, people: Sequence[int]) -> float:
        """From the commit of the events, one about each of the people, upon which the bell rings,
        to the last mail that is recorded as sent. Nobody sees the events before."""
        # With the enrollments: whoever has had the mail of an event does not get it again.
        tables = ["events_event", "delivery_message", "campaigns_enrollment"]
        if not self.keeps_contacts:
            tables.append("contacts_contact")
        self.database.execute(f"TRUNCATE {', '.join(tables)} CASCADE")
        before = self.accepted.stat().st_size if self.accepted.exists() else 0
        rows = (_event_row(prefix, number) for number in people)
        with _bell(self.workplace) as ring, psycopg.connect(self.database.url) as connection:
            copy_rows(connection, _EVENTS, rows)
            self.database.execute("CHECKPOINT")
            (begun,) = connection.execute("SELECT clock_timestamp()").fetchone() or (None,)
            assert isinstance(begun, datetime)
            connection.commit()
            ring()
            ended = self._end(len(people), ring, after=before)
        insist_on_each(self.accepted, prefix, len(people), after=before)
        return (ended - begun).total_seconds()

    def _end(self, count: int, ring: Callable[[], None], *, after: int) -> datetime:
        """When the last was sent. Rings again now and then, as the sweep would: a worker that was
        ending may have heard the first one."""
        rung = time.monotonic()
        deadline = rung + _PATIENCE_SECONDS
        with psycopg.connect(self.database.url, autocommit=True) as connection:
            while time.monotonic() < deadline:
                if time.monotonic() - rung > _RING_SECONDS:
                    ring()
                    rung = time.monotonic()
                if self._taken(after) >= count and (ended := _sent(connection, count)):
                    return ended
                time.sleep(0.2)
            query = "SELECT state, reason, count(*) FROM delivery_message GROUP BY 1, 2"
            raise BenchError(f"not sent: {connection.execute(query).fetchall()}")

    def _taken(self, after: int) -> int:
        # The sink's file is asked first: to count rows costs the database what it is measured by.
        return self.accepted.read_bytes()[after:].count(b"\n") if self.accepted.exists() else 0


def _sent(connection: psycopg.Connection[tuple[Any, ...]], count: int) -> datetime | None:
    """When the last of so many was recorded as sent; None while there are not that many."""
    query = "SELECT count(*), max(sent_at) FROM delivery_message WHERE state = 'sent'"
    sent, last = connection.execute(query).fetchone() or (0, None)
    assert last is None or isinstance(last, datetime)
    return last if sent == count else None


@contextlib.contextmanager
def emailauto_sending(
    logs: Path,
    port: int,
    accepted: Path,
    *,
    keeps_contacts: bool = False,
    like: Database | None = None,
) -> Iterator[Sending]:
    """The stack, which sends to the sink on `port`; on a database like another if there is one."""
    sink = {"EMAIL_URL": f"smtp://127.0.0.1:{port}"}
    with emailauto_stack(logs, sink, like=like) as (database, workplace):
        yield Sending(database, workplace, accepted, keeps_contacts)


@contextlib.contextmanager
def warm_worker(sending: Sending, people: Sequence[int] = range(400)) -> Iterator[Child]:
    """The worker of `make run` once it is up and every process of it has had work."""
    started = time.monotonic()
    with running(programs.worker(sending.workplace)) as worker:
        sending.seconds("warm-up", people)
        say(f"our worker is up and warm after {time.monotonic() - started:.1f} s")
        yield worker


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

        def ring() -> None:
            assert ringer.stdin is not None
            ringer.stdin.write(b"\n")
            ringer.stdin.flush()

        yield ring
        ringer.stdin.close()

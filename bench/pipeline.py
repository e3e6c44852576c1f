"""From rows in the inbox to mails that are recorded as sent, against a queue that only sends."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from bench.accepted import insist_on_each
from bench.comparison import Comparison, Sample, Series
from bench.database import Database, copy_rows, fresh_database
from bench.events import address
from bench.naive import naive_project
from bench.processes import BenchError, own, run, running
from bench.report import say
from bench.scale import Scale
from bench.sending import Sending, emailauto_sending, warm_worker
from emailauto.embedded.server import free_port

_MAILS = 10_000
# Their rate does not depend on how many there are, and 10,000 would take them minutes.
_NAIVE_MAILS = 500
_RATE = "mails/s"
_OURS = "emailauto, events to sent"
_THEIRS = "django-post-office, sending only"
_TASKS = "a Celery task per mail"
_BATCH = "a script for cron"

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
        emailauto_sending(logs, port, accepted) as ours,
        warm_worker(ours),
        _post_office(logs, port, accepted, wording := _wording(ours)) as theirs,
        naive_project(logs, port, accepted, wording) as naive,
    ):
        sides: dict[str, Callable[[str], float]] = {
            _OURS: lambda prefix: count / ours.seconds(f"{prefix}-ours", range(count)),
            _THEIRS: lambda prefix: count / theirs.seconds(f"{prefix}-theirs", count),
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
class _PostOffice:
    database: Database
    env: Mapping[str, str]
    accepted: Path
    wording: Mapping[str, Any] = field(repr=False)

    def seconds(self, prefix: str, count: int) -> float:
        """As it says itself; the start of its process is not in it."""
        self.database.execute("TRUNCATE post_office_email CASCADE")
        rows = (self._row(prefix, n) for n in range(count))
        with psycopg.connect(self.database.url) as connection:
            copy_rows(connection, _MAILS_OF_POST_OFFICE, rows)
        self.database.execute("VACUUM ANALYZE post_office_email")
        self.database.execute("CHECKPOINT")
        output = run("-m", "bench.baselines.postoffice.send", env=self.env)
        insist_on_each(self.accepted, prefix, count)
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
def _post_office(
    logs: Path, port: int, accepted: Path, wording: Mapping[str, Any]
) -> Iterator[_PostOffice]:
    with fresh_database("postoffice") as database:
        # Its lock is a file in the directory for temporary ones.
        places = {"DATABASE_URL": database.url, "SINK_PORT": str(port), "TMPDIR": str(logs)}
        env = {**os.environ, **places}
        run("-m", "bench.baselines.postoffice.prepare", env=env)
        yield _PostOffice(database, env, accepted, wording)


def _wording(ours: Sending) -> dict[str, Any]:
    """Of a mail of ours, as `bench.wording` tells it."""
    wording: dict[str, Any] = msgspec.json.decode(
        run("-m", "bench.wording", env=ours.workplace.env)
    )
    return wording

"""The two ways mail is first sent by, on a database of their own: see `bench.baselines.naive`."""

import contextlib
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psycopg

from bench.accepted import insist_on_each
from bench.database import Database, fresh_database
from bench.processes import CHECKOUT, BenchError, run, running
from emailauto.processes import Process
from emailauto.supervisor.programs import Workplace

_PATIENCE_SECONDS = 240.0
# Of 2, 4 and 8 on two cores the fastest: a task waits for the server and for the database.
_PROCESSES = 8
# So many mails a process that has just started needs until it is as fast as it gets.
_WARM_UP = 40

_FILL = """
    TRUNCATE naive_order;
    INSERT INTO naive_order (email, name, number)
    SELECT '{prefix}-' || n || '@example.com', 'Ada Abel', lpad(n::text, 8, '0')
    FROM generate_series(0, {last}) AS n
"""


@dataclass(frozen=True, slots=True)
class Naive:
    """The project, ready to send to the sink that writes to `accepted`."""

    database: Database
    workplace: Workplace
    accepted: Path

    def batch(self, prefix: str, count: int) -> float:
        """Mails per second of the script that cron runs, without its start."""
        self._fill(prefix, count)
        output = run("-m", "bench.baselines.naive.batch", env=self.workplace.env)
        insist_on_each(self.accepted, prefix, count)
        return count / float(output)

    def tasks(self, prefix: str, count: int) -> float:
        """Mails per second of a worker that has a task for each; they are queued before it
        starts, and the first do not count."""
        queue = f"naive-{secrets.token_hex(4)}"
        workplace = Workplace(CHECKOUT, self.workplace.logs, {**self.workplace.env, "QUEUE": queue})
        self._fill(prefix, count + _WARM_UP)
        run("-m", "bench.baselines.naive.enqueue", env=workplace.env)
        with running(_worker(workplace, queue)):
            sent = self._until_sent(count + _WARM_UP)
        insist_on_each(self.accepted, prefix, count + _WARM_UP)
        return count / (sent[-1] - sent[_WARM_UP - 1]).total_seconds()

    def _fill(self, prefix: str, count: int) -> None:
        self.database.execute(_FILL.format(prefix=prefix, last=count - 1))
        self.database.execute("VACUUM ANALYZE naive_order")
        self.database.execute("CHECKPOINT")

    def _until_sent(self, count: int) -> list[datetime]:
        """When each was, in order."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        with psycopg.connect(self.database.url, autocommit=True) as connection:
            query = "SELECT sent_at FROM naive_order WHERE sent_at IS NOT NULL ORDER BY 1"
            while len(rows := connection.execute(query).fetchall()) < count:
                if time.monotonic() > deadline:
                    raise BenchError(f"Celery has sent {len(rows)} of {count} mails")
                time.sleep(0.5)
        return [moment for (moment,) in rows]


@contextlib.contextmanager
def naive_project(
    logs: Path, port: int, accepted: Path, wording: Mapping[str, Any]
) -> Iterator[Naive]:
    """Its mails have the wording of ours, with the person's name in it, and go to the sink on
    `port`."""
    file = logs / "wording.json"
    file.write_bytes(msgspec.json.encode({**wording, "templates": _templates(wording)}))
    with fresh_database("naive") as database:
        env = {
            **os.environ,
            "DATABASE_URL": database.url,
            # A database of the broker where nobody else's workers are.
            "CELERY_BROKER_URL": urlsplit(os.environ["REDIS_URL"])._replace(path="/2").geturl(),
            "SINK_PORT": str(port),
            "WORDING": str(file),
        }
        run("-m", "bench.baselines.naive.prepare", env=env)
        yield Naive(database, Workplace(CHECKOUT, logs, env), accepted)


def _templates(wording: Mapping[str, Any]) -> dict[str, str]:
    parts = {"subject": "subject", "txt": "text", "html": "html"}
    return {
        f"receipt.{ending}": wording[part].replace("Ada Abel", "{{ name }}")
        for ending, part in parts.items()
    }


def _worker(workplace: Workplace, queue: str) -> Process:
    return workplace.process(
        "naive",
        *("-m", "celery", "-A", "bench.baselines.naive.app", "worker", "--loglevel", "WARNING"),
        *("--concurrency", str(_PROCESSES), "-Q", queue),
        *("--without-mingle", "--without-gossip", "--without-heartbeat"),
    )

"""The intakes that are measured, each as its makers would start it, on a database of its own."""

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.database import Database, fresh_database
from bench.processes import CHECKOUT, run, serving
from emailauto.embedded.server import free_port
from emailauto.processes import Process
from emailauto.supervisor import programs
from emailauto.supervisor.programs import Workplace

_CONFIG = Path(__file__).with_name("config.yaml")
# Per process. Of 1, 2, 4 and 8, from 2 on none is faster, and with 8 the tail is twice as long.
_DRF_THREADS = 4


@dataclass(frozen=True, slots=True)
class Side:
    """A running intake: how it is posted to, and the table that has to hold it afterwards."""

    name: str
    port: int
    path: str
    authorization: str
    database: Database
    table: str
    is_emptied: bool = True
    """Whether its table is emptied before each run."""


@contextlib.contextmanager
def emailauto_stack(
    logs: Path, environment: Mapping[str, str] | None = None, *, like: Database | None = None
) -> Iterator[tuple[Database, Workplace]]:
    """A database with the demo in it, or one like another, and a place for processes to work on it.

    The producer's limit is far away but counted: what a request pays for it is measured too.
    """
    with fresh_database("emailauto", like=like) as database:
        env = {**os.environ, "DATABASE_URL": database.url, "EMAILAUTO_CONFIG": str(_CONFIG)}
        workplace = Workplace(CHECKOUT, logs, {**env, **(environment or {})})
        if like is None:
            run("manage.py", "prepare", env=workplace.env)
            database.execute("UPDATE events_apikey SET rate_limit = 10000000")
        yield database, workplace


@contextlib.contextmanager
def emailauto_intake(
    database: Database, workplace: Workplace, *, name: str = "emailauto"
) -> Iterator[Side]:
    """Ours, by the command line of `make run`."""
    port = free_port()
    web = programs.web(workplace, host="127.0.0.1", port=port)
    authorization = f"Bearer {workplace.env['EMAILAUTO_DEMO_API_KEY']}"
    with serving(web, port):
        yield Side(name, port, "/api/v1/events", authorization, database, "events_event")


@contextlib.contextmanager
def drf_intake(logs: Path) -> Iterator[tuple[Side, Side]]:
    """The baseline: its view that stores one by one, and the one that stores lists at once."""
    token = secrets.token_hex(20)
    with fresh_database("drf") as database:
        env = {**os.environ, "DATABASE_URL": database.url}
        run("-m", "bench.baselines.drf.prepare", token, env=env)
        port = free_port()
        with serving(_drf_web(logs, env, port), port):
            single, bulk = (
                Side(name, port, path, f"Token {token}", database, "drf_event")
                for name, path in (("DRF create()", "/events"), ("DRF bulk_create()", "/bulk"))
            )
            yield single, bulk


def _drf_web(logs: Path, env: Mapping[str, str], port: int) -> Process:
    """The same server with as many processes as ours has."""
    workplace = Workplace(CHECKOUT, logs, env)
    ours = programs.web(workplace, host="127.0.0.1", port=port).argv
    return workplace.process(
        "drf",
        *("-m", "granian", "--interface", "wsgi", "bench.baselines.drf.wsgi:application"),
        *("--host", "127.0.0.1", "--port", str(port), "--no-ws", "--no-access-log"),
        *("--workers", ours[ours.index("--workers") + 1]),
        *("--blocking-threads", str(_DRF_THREADS)),
    )

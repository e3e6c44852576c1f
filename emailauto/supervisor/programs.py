"""The application's own processes: web, worker, beat, and the preparation before them."""

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from emailauto.processes import Process

# What somebody waits for, and what may take its time: a broadcast never stands before a receipt.
_PROMPT_LANES = "events,timers,transactional,feedback,maintenance"
_BULK_LANES = "marketing,outgoing,bulk"
_MOST_WEB_WORKERS = 4
# Each holds a connection to the database, and so do up to two dozen threads of a web worker.
_MOST_PROCESSES = 64


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where the application's processes run, with which environment, and where they log."""

    checkout: Path
    logs: Path
    env: Mapping[str, str]

    def process(self, name: str, *argv: str, grace: float = 10.0) -> Process:
        """Return a run of our Python. Modules, not scripts: those hold the path of the venv."""
        return Process(
            name=name,
            argv=(sys.executable, *argv),
            env=self.env,
            cwd=self.checkout,
            log=self.logs / f"{name}.log",
            stop_signal=signal.SIGTERM,
            grace=grace,
        )


def prepare(workplace: Workplace) -> Process:
    """Migrate, load the demo, make its login and API key."""
    return workplace.process("prepare", "manage.py", "prepare")


def web(workplace: Workplace, *, host: str, port: int) -> Process:
    """Serve the API, the admin and the recipients' pages."""
    return workplace.process(
        "web",
        *("-m", "granian", "--interface", "asgi", "emailauto.asgi:application"),
        *("--host", host, "--port", str(port), "--no-ws", "--no-access-log"),
        *("--workers", str(min(_cores(), _MOST_WEB_WORKERS))),
        *("--loop", "uvloop", "--http", "1"),
        # A page in flight can hold the end of its process up for ever.
        *("--workers-kill-timeout", "5"),
        "--respawn-failed-workers",
    )


def worker(workplace: Workplace) -> Process:
    """Drain the lanes that somebody waits for. One process more than there are cores would send a
    tenth more at once, in smaller batches, and a single event would take a quarter longer."""
    processes = min(max(2, _cores()), _MOST_PROCESSES)
    return _worker(workplace, "worker", _PROMPT_LANES, processes=processes)


def bulk_worker(workplace: Workplace) -> Process:
    """Drain the others."""
    return _worker(workplace, "bulk-worker", _BULK_LANES, processes=2)


def _worker(workplace: Workplace, name: str, lanes: str, *, processes: int) -> Process:
    return workplace.process(
        name,
        *("-m", "celery", "-A", "emailauto", "worker", "--loglevel", "INFO"),
        *("--hostname", f"{name}@%h", "--concurrency", str(processes), "-Q", lanes),
        *("--without-mingle", "--without-gossip"),
    )


def beat(workplace: Workplace) -> Process:
    """Ring the lanes. Without a pid file: a stale one would keep the clock from starting."""
    return workplace.process(
        "beat",
        *("-m", "celery", "-A", "emailauto", "beat", "--loglevel", "INFO", "--pidfile="),
        *("-S", "django_celery_beat.schedulers:DatabaseScheduler"),
        grace=5.0,
    )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # what a container or taskset leaves us
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

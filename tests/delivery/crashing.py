"""`python -m tests.delivery.crashing POINT SIGNAL STREAM`: a process that gets a signal at a point.

It runs the real drain, or the real sweep, in a process of its own and, the first time it comes to
the point, sends itself the signal: SIGKILL as the machine's end does, SIGSTOP as a frozen virtual
machine is.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psutil
from celery import Celery
from django.utils.module_loading import import_string
from kombu import Connection

POINTS = {
    "claimed": ("delivery.transitions", "claim", "after"),
    "rendering": ("delivery.departures", "build_outbound", "before"),
    "before the promise": ("delivery.transitions", "dispatch", "before"),
    "promised, not committed": ("delivery.transitions", "dispatch", "after"),
    "promised": ("delivery.engine", "hand_over", "before"),
    "begun": ("delivery.backends.http.GuardedBackend", "request", "before"),
    "answered": ("delivery.offering", "shown", "before"),
    "not recorded": ("delivery.engine", "record", "before"),
    "recorded": ("delivery.engine", "record", "after"),
}
# Of a dialogue over SMTP; each comes once per mail.
SMTP_POINTS = {
    "to be announced": ("delivery.backends.smtp.SMTPBackend", "announce", "before"),
    "announced": ("delivery.backends.smtp.SMTPBackend", "announce", "after"),
    "to be begun": ("delivery.journal.Journal", "begin", "before"),
    "right granted": ("delivery.journal.Journal", "begin", "after"),
    "to be written": ("delivery.backends.smtp.SMTPBackend", "deliver", "before"),
    "delivered": ("delivery.backends.smtp.SMTPBackend", "deliver", "after"),
}
SWEEP_POINTS = {
    "sweep begun": ("emailauto.sweep", "recover", "before"),
    "claims recovered": ("delivery.transitions", "recover_claimed", "after"),
    "rights revoked": ("delivery.recovery", "revoke", "after"),
    "settled, not committed": ("delivery.transitions", "settle", "after"),
    "holds to be released": ("delivery.recovery", "release_held", "before"),
    "bell to be rung": ("emailauto.sweep", "ring", "before"),
}


def start(
    point: str,
    number: int = signal.SIGKILL,
    *,
    time: int = 1,
    stream: str = "transactional",
) -> "subprocess.Popen[bytes]":
    """Start one on the database and the Redis of the test, which has to be a transactional one.
    The signal comes when it is at the point for the `time`th time; without a point it works as
    usual."""
    arguments = [point, str(int(number)), str(time), stream]
    command = [sys.executable, "-m", "tests.delivery.crashing", *arguments]
    return subprocess.Popen(command, env=environment(broker="memory://"))


@contextmanager
def celery_worker(*, lease_seconds: int = 60) -> "Iterator[subprocess.Popen[bytes]]":
    """A real worker of the transactional lane, whose bell rings again and again."""
    command = "-m celery -A emailauto worker --concurrency 2 -Q transactional --without-mingle"
    process = subprocess.Popen(
        [sys.executable, *command.split(), "--without-gossip"],
        env=environment(broker=broker()) | {"LEASE_SECONDS": str(lease_seconds)},
    )
    over = threading.Event()
    ringer = threading.Thread(target=_ring, args=(broker(), over), daemon=True)
    ringer.start()
    try:
        yield process
    finally:
        over.set()
        ringer.join()
        if process.poll() is None:
            _end(psutil.Process(process.pid))
            process.wait(30)


def _end(worker: psutil.Process) -> None:
    """With its processes, each of which would go on until it has noticed."""
    worker.suspend()  # It replaces the ones that die.
    processes = worker.children(recursive=True)
    for one in [*processes, worker]:
        one.kill()
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert alive == []


def _ring(broker: str, over: threading.Event) -> None:
    # As Celery's own setting it would stand behind the variable CELERY_BROKER_URL.
    with Celery(set_as_current=False) as bell, Connection(broker) as connection:
        while not over.wait(0.3):
            bell.send_task("drain.transactional", queue="transactional", connection=connection)


def broker() -> str:
    """The Redis of the test as Celery's broker; Kombu takes no options in a URL."""
    from django.conf import settings

    return settings.REDIS_URL.partition("?")[0]


def environment(*, broker: str) -> dict[str, str]:
    """That of a process on the database and the Redis of the test."""
    from django.conf import settings
    from django.db import connection

    database = urlsplit(os.environ["DATABASE_URL"])._replace(
        path=f"/{connection.settings_dict['NAME']}"
    )
    return {
        **os.environ,
        "DATABASE_URL": urlunsplit(database),
        "REDIS_URL": settings.REDIS_URL,
        "CELERY_BROKER_URL": broker,
        "LEASE_SECONDS": "60",
    }


def _trap(point: str, number: int, time: int) -> None:
    owner_name, name, when = (POINTS | SMTP_POINTS | SWEEP_POINTS)[point]
    owner = _owner(owner_name)
    as_usual: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def trapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls < time:
            return as_usual(*args, **kwargs)
        setattr(owner, name, as_usual)
        if when == "before":
            os.kill(os.getpid(), number)
        result = as_usual(*args, **kwargs)
        if when == "after":
            os.kill(os.getpid(), number)
        return result

    setattr(owner, name, trapped)


def _owner(name: str) -> Any:
    """A module, or a class by its dotted path."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        return import_string(name)


if __name__ == "__main__":
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "emailauto.settings")
    django.setup()
    from delivery.engine import drain
    from emailauto.sweep import sweep

    if sys.argv[1]:
        _trap(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    with suppress(KeyboardInterrupt):
        if sys.argv[1] in SWEEP_POINTS:
            sweep()
        else:
            drain(sys.argv[4], budget=10)

"""Random kills of real workers over thousands of mails: none lost, none twice, doubts counted.

`EMAILAUTO_SOAK=1` makes it the full soak: 20,000 messages and 200 kills, a quarter of an hour; and
has the usual sender go through the same, for comparison.
"""

import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.db import connection
from django.db.models import F

from delivery import recovery
from delivery.models import Message
from tests.auditor import audit
from tests.delivery import crashing, naive
from tests.delivery.fakeesp import fake_esp
from tests.factories import MessageFactory, ProviderFactory, SenderFactory

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("crashes")]

IS_FULL = bool(os.environ.get("EMAILAUTO_SOAK"))
MESSAGES, KILLS = (20_000, 200) if IS_FULL else (600, 6)
LEASE_SECONDS = 4
CONNECTIONS = 4
PROCESSES = 2
# Slow enough for the kills to hit calls, fast enough to end.
CALL_SECONDS = 0.04 if IS_FULL else 0.01


def test_soak(monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("TEST_KEY", "a key")
    settings.LEASE_SECONDS = LEASE_SECONDS
    with fake_esp(ledger=tmp_path / "ledger.jsonl") as esp, ExitStack() as stack:
        esp.usual.seconds = CALL_SECONDS
        make_messages(esp.url)
        stack.enter_context(Sweeping())
        started = time.monotonic()
        killed = under_kills(lambda: crashing.celery_worker(lease_seconds=LEASE_SECONDS), unsettled)
        states = Counter(Message.objects.values_list("state", flat=True))
        report("ours", killed, started, esp.ledger, dict(states))
        # Sent are those and only those that were taken, once each, and those in doubt may be.
        assert audit(ledger=esp.book.entries(), lease_seconds=LEASE_SECONDS, at_rest=True) == []
        sent = set(Message.objects.filter(state="sent").values_list("pk", flat=True))
        assert sent <= set(esp.ledger)
        assert set(states) <= {"sent", "unknown"}
        assert states["unknown"] <= killed * PROCESSES * CONNECTIONS
        assert states.total() == MESSAGES


@pytest.mark.skipif(not IS_FULL, reason="a comparison, of which nothing is asserted")
@pytest.mark.unaudited("the usual sender has no rows of ours, and keeps no invariant")
@pytest.mark.parametrize("requeues", [False, True], ids=["acks_late", "reject_on_worker_lost"])
def test_soak_of_the_usual_sender(tmp_path: Path, requeues: bool) -> None:
    with naive.table(), fake_esp(ledger=tmp_path / "ledger.jsonl") as esp:
        esp.usual.seconds = CALL_SECONDS
        ids = naive.enqueue(MESSAGES)

        def worker() -> AbstractContextManager["subprocess.Popen[bytes]"]:
            return naive.worker(
                esp.url,
                concurrency=PROCESSES * CONNECTIONS,
                requeues=requeues,
                visibility_seconds=30,
            )

        started = time.monotonic()
        killed = under_kills(worker, lambda: not naive.is_idle())
        unsaved = naive.Mail.objects.filter(sent=False, pk__in=esp.ledger).count()
        report(
            f"usual, requeues={requeues}", killed, started, esp.ledger, {"taken, unsaved": unsaved}
        )
        assert set(esp.ledger) <= set(ids)


def report(who: str, killed: int, started: float, ledger: Counter[Any], rest: Any) -> None:
    twice = sum(count > 1 for count in ledger.values())
    print(  # noqa: T201 - what a soak is for
        f"\nsoak of {who}: {MESSAGES} messages, {killed} kills, {time.monotonic() - started:.0f} s,"
        f" taken {len(ledger)}, never taken {MESSAGES - len(ledger)}, taken twice or more {twice},"
        f" at most {max(ledger.values())} times; {rest}"
    )


def under_kills(
    start: Callable[[], AbstractContextManager["subprocess.Popen[bytes]"]],
    is_busy: Callable[[], bool],
) -> int:
    """Run worker after worker, each until it is killed, until all is done; how many were."""
    dice = random.Random(4)
    killed = 0
    while is_busy():
        with start() as worker:
            deadline = time.monotonic() + (dice.uniform(2.5, 4.5) if killed < KILLS else 600)
            while is_busy() and worker.poll() is None and time.monotonic() < deadline:
                time.sleep(0.2)
            if killed < KILLS:
                kill(worker.pid, dice.choice(["child", "parent", "group"]))
                killed += 1
    return killed


def make_messages(url: str) -> None:
    provider = ProviderFactory(
        key="esp",
        backend="postmark",
        api_url=url,
        secret_env="TEST_KEY",
        concurrency=CONNECTIONS,
        rate_limit=100_000,
    )
    first = MessageFactory(sender=SenderFactory(provider=provider))
    columns = [
        f.column for f in Message._meta.concrete_fields if f.column not in ("id", "dedupe_key")
    ]
    names = ", ".join(columns)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO delivery_message (id, dedupe_key, {names}) "
            f"SELECT gen_random_uuid(), 'soak-' || n, {names} "
            "FROM delivery_message, generate_series(2, %s) AS n WHERE id = %s",
            [MESSAGES, first.pk],
        )


def unsettled() -> bool:
    return Message.objects.exclude(state__in=("sent", "unknown")).exists()


class Sweeping:
    """The clock's part: what dead workers held is taken back every second."""

    def __enter__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._over.wait(1.0):
                recovery.recover()
                # A soak is about kills by chance, not about messages that kill their workers.
                Message.objects.filter(crashes__gt=0).update(crashes=F("crashes") * 0)
        finally:
            connection.close()


def kill(parent: int, victim: str) -> None:
    try:
        family = psutil.Process(parent).children(recursive=True)
        if victim in ("parent", "group"):
            os.kill(parent, signal.SIGKILL)
        for child in family if victim in ("child", "group") else ():
            child.kill()
        if victim == "parent":
            # Orphaned children notice, or are ended by whoever starts the next worker.
            _, alive = psutil.wait_procs(family, timeout=2)
            for child in alive:
                child.kill()
    except (psutil.NoSuchProcess, ProcessLookupError):
        return

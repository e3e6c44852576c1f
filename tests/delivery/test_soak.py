"""Random kills of real workers over thousands of mails: none lost, none twice, doubts counted.

`EMAILAUTO_SOAK=1` makes it the full soak: 20,000 messages and 200 kills, a quarter of an hour.
"""

import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

import psutil
import pytest
from django.db import connection
from django.db.models import F

from delivery import recovery
from delivery.models import Message
from tests.delivery import crashing
from tests.delivery.fakeesp import fake_esp
from tests.factories import MessageFactory, ProviderFactory, SenderFactory

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("crashes")]

IS_FULL = bool(os.environ.get("EMAILAUTO_SOAK"))
MESSAGES, KILLS = (20_000, 200) if IS_FULL else (600, 6)
LEASE_SECONDS = 4
CONNECTIONS = 4


def test_soak(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setenv("TEST_KEY", "a key")
    settings.LEASE_SECONDS = LEASE_SECONDS
    dice = random.Random(4)
    with fake_esp() as esp, ExitStack() as stack:
        # Slow enough for the kills to hit calls, fast enough to end.
        esp.usual.seconds = 0.04 if IS_FULL else 0.01
        make_messages(esp.url)
        stack.enter_context(Sweeping())
        killed = 0
        while unsettled():
            with crashing.celery_worker(lease_seconds=LEASE_SECONDS) as worker:
                deadline = time.monotonic() + (dice.uniform(2.5, 4.5) if killed < KILLS else 600)
                while unsettled() and worker.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.2)
                if killed < KILLS:
                    kill(worker.pid, dice.choice(["child", "parent", "group"]))
                    killed += 1
        states = Counter(Message.objects.values_list("state", flat=True))
        print(f"\nsoak: {MESSAGES} messages, {killed} kills, {dict(states)}")  # noqa: T201
        taken = set(esp.ledger)
        assert max(esp.ledger.values()) == 1
        sent = set(Message.objects.filter(state="sent").values_list("pk", flat=True))
        assert sent <= taken
        assert set(states) <= {"sent", "unknown"}
        assert states["unknown"] <= killed * 2 * CONNECTIONS
        # Nothing that was taken is shown as anything but sent or in doubt, and nothing is missing.
        assert states.total() == MESSAGES


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

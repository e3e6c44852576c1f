"""Workers killed in the middle, again and again, over a receiver that fails as it pleases: each
event arrives, and what arrives twice has the id it had before.

`EMAILAUTO_SOAK=1` makes it 1,000 deliveries and six kills.
"""

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from celery import Celery
from django.db.models.functions import Now
from kombu import Connection

from tests.delivery import crashing
from tests.webhooks.outgoing.receiver import LOST, Answer, Call, receiving
from tests.webhooks.outgoing.rows import make_endpoint
from webhooks.models import OutgoingDelivery, OutgoingEndpoint, Turn
from webhooks.outgoing.sending import TURN

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("crashes")]

IS_FULL = bool(os.environ.get("EMAILAUTO_SOAK"))
DELIVERIES, KILLS = (1_000, 6) if IS_FULL else (300, 3)
WORKERS = 3
PATIENCE = 400.0


def answer_at_random(_call: Call) -> Answer:
    """Takes it, refuses it, or takes it and is lost before it could say so."""
    dice = random.random()
    if dice < 0.15:
        return random.choice((500, 502, 404, 429)), {}, b"not now"
    if dice < 0.20:
        return LOST, {}, b""
    time.sleep(random.uniform(0, 0.04))
    return 200, {}, b"thanks"


class Workers:
    """Real workers of the lane. One process each, so that a kill leaves nobody behind."""

    def __init__(self, broker: str) -> None:
        self._broker = broker
        self._numbers = itertools.count(1)
        self._living: dict[str, subprocess.Popen[bytes]] = {}
        for _ in range(WORKERS):
            self.start()

    def start(self) -> None:
        command = "-m celery -A emailauto worker --pool solo -Q outgoing --without-mingle"
        name = f"drain-{next(self._numbers)}"
        self._living[name] = subprocess.Popen(
            [sys.executable, *command.split(), "--without-gossip", "--hostname", f"{name}@here"],
            env=crashing.environment(broker=self._broker)
            | {"LEASE_SECONDS": "2", "OUTGOING_ALLOWED_HOSTS": "127.0.0.0/8"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill_the_one_that_drains(self) -> bool:
        """SIGKILL for whoever has the lane's turn; False when nobody does just now."""
        turn = Turn.objects.filter(name=TURN, lease_until__gt=Now()).first()
        holders = [
            name
            for name, process in self._living.items()
            if turn is not None and f":{process.pid}:" in turn.lease_owner
        ]
        for name in holders:
            os.kill(self._living[name].pid, signal.SIGKILL)
            self._living.pop(name).wait(10)
            self.start()
        return bool(holders)

    def end(self) -> None:
        for process in self._living.values():
            process.kill()
            process.wait(10)


@contextmanager
def ringing(broker: str) -> Iterator[None]:
    """The bell of the lane, again and again."""
    over = threading.Event()

    def ring() -> None:
        with Celery(set_as_current=False) as bell, Connection(broker) as connection:
            while not over.wait(0.3):
                bell.send_task("drain.outgoing", queue="outgoing", connection=connection)

    ringer = threading.Thread(target=ring, daemon=True)
    ringer.start()
    try:
        yield
    finally:
        over.set()
        ringer.join()


def delivered() -> int:
    return OutgoingDelivery.objects.filter(state="delivered").count()


def hasten() -> None:
    """Let the time pass that failures wait, but not that of leases."""
    waiting = OutgoingDelivery.objects.filter(state="pending", lease_until=None, due_at__gt=Now())
    waiting.update(due_at=Now(), attempts=0)
    OutgoingEndpoint.objects.update(resume_at=None)


def test_each_event_arrives_and_repetitions_have_its_id() -> None:
    killed, started = 0, time.monotonic()
    with receiving(answer=answer_at_random) as receiver, ringing(crashing.broker()):
        endpoint = make_endpoint(receiver)
        rows = [
            OutgoingDelivery(
                endpoint=endpoint,
                event_id=f"event-{number}",
                type="email.opened",
                body=f'{{"type":"email.opened","data":{{"number":{number}}}}}',
            )
            for number in range(DELIVERIES)
        ]
        OutgoingDelivery.objects.bulk_create(rows)
        workers = Workers(crashing.broker())
        try:
            while (done := delivered()) < DELIVERIES:
                assert time.monotonic() - started < PATIENCE, f"{done} after {killed} kills"
                if killed < KILLS and done >= (killed + 1) * DELIVERIES // (KILLS + 2):
                    killed += workers.kill_the_one_that_drains()
                hasten()
                time.sleep(0.1)
        finally:
            workers.end()
    assert killed == KILLS
    assert receiver.forged == []
    expected = {row.event_id: {row.body.encode()} for row in rows}
    assert receiver.bodies == expected
    assert set(receiver.taken) == set(expected)
    assert min(receiver.taken.values()) >= 1
    twice = sum(count > 1 for count in receiver.taken.values())
    told = f"{DELIVERIES} events, {killed} kills, {len(receiver.calls)} calls, {twice} taken twice"
    sys.stderr.write(f"\n{told}\n")

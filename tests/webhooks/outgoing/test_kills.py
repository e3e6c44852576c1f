"""Workers killed in the middle, again and again, over a receiver that fails as it pleases: each
event arrives, and what arrives twice has the id it had before."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import Celery
from django.db.models.functions import Now
from kombu import Connection

from tests.delivery import crashing
from tests.webhooks.outgoing.receiver import LOST, Answer, Call, receiving
from tests.webhooks.outgoing.rows import make_endpoint
from webhooks.models import OutgoingDelivery, OutgoingEndpoint

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("crashes")]

DELIVERIES = 1_000
KILLS = 6
PATIENCE = 240.0


def answer_at_random(_call: Call) -> Answer:
    """Takes it, refuses it, or takes it and is lost before it could say so."""
    dice = random.random()
    if dice < 0.15:
        return random.choice((500, 502, 404, 429)), {}, b"not now"
    if dice < 0.20:
        return LOST, {}, b""
    time.sleep(random.uniform(0, 0.04))
    return 200, {}, b"thanks"


def start_worker(broker: str) -> "subprocess.Popen[bytes]":
    """A real worker of the lane. One process, so that a kill leaves nobody behind."""
    command = "-m celery -A emailauto worker --pool solo -Q outgoing --without-mingle"
    return subprocess.Popen(
        [sys.executable, *command.split(), "--without-gossip", "--without-heartbeat"],
        env=crashing.environment(broker=broker)
        | {"LEASE_SECONDS": "2", "OUTGOING_ALLOWED_HOSTS": "127.0.0.0/8"},
    )


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


def test_each_event_arrives_and_repetitions_have_its_id(settings: Any) -> None:
    killed, started = 0, time.monotonic()
    with receiving(answer=answer_at_random) as receiver, ringing(settings.REDIS_URL):
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
        worker = start_worker(settings.REDIS_URL)
        try:
            while (done := delivered()) < DELIVERIES:
                assert time.monotonic() - started < PATIENCE, f"{done} after {killed} kills"
                if killed < KILLS and done >= (killed + 1) * DELIVERIES // (KILLS + 2):
                    os.kill(worker.pid, signal.SIGKILL)
                    worker.wait(10)
                    killed += 1
                    worker = start_worker(settings.REDIS_URL)
                hasten()
                time.sleep(0.1)
        finally:
            worker.kill()
            worker.wait(10)
    assert killed == KILLS
    assert receiver.forged == []
    expected = {row.event_id: {row.body.encode()} for row in rows}
    assert receiver.bodies == expected
    assert set(receiver.taken) == set(expected)
    assert min(receiver.taken.values()) >= 1
    twice = sum(count > 1 for count in receiver.taken.values())
    told = f"{DELIVERIES} events, {killed} kills, {len(receiver.calls)} calls, {twice} taken twice"
    sys.stderr.write(f"\n{told}\n")

"""What happens to the usual sender where ours is tested to lose and double nothing (E09, K11, K14):
the same provider, the same faults, nothing by chance. test_soak.py runs both for long."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.delivery import naive
from tests.delivery.fakeesp import Answer, FakeESP, fake_esp
from tests.delivery.test_crashes import wait_for

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.xdist_group("crashes"),
    pytest.mark.unaudited("the usual sender has no rows of ours, and keeps no invariant"),
]


@pytest.fixture
def esp() -> Iterator[FakeESP]:
    with naive.table(), fake_esp() as server:
        yield server


def family(parent: int) -> list[psutil.Process]:
    return psutil.Process(parent).children(recursive=True)


def test_it_doubles_what_was_accepted_unreadably_and_what_it_died_before_saving(
    esp: FakeESP,
) -> None:
    def kill_all(_: Any) -> None:
        children = family(worker.pid)
        os.kill(worker.pid, signal.SIGKILL)
        for child in children:
            child.kill()

    esp.script = [Answer(200, "not json", takes=True)]
    with naive.worker(esp.url, concurrency=1) as worker:
        (unreadable,) = naive.enqueue(1)
        wait_for(lambda: esp.ledger == {unreadable: 2})
        esp.script = [Answer(takes=True, do=kill_all)]
        (interrupted,) = naive.enqueue(1)
        assert worker.wait(30) == -signal.SIGKILL
    assert esp.ledger[interrupted] == 1
    with naive.worker(esp.url, concurrency=1, visibility_seconds=1):
        wait_for(lambda: esp.ledger == {unreadable: 2, interrupted: 2})


def test_it_loses_what_its_child_died_of(esp: FakeESP) -> None:
    def kill_the_child(_: Any) -> None:
        for child in family(worker.pid):
            child.kill()

    esp.script = [Answer(at_once=kill_the_child)]
    with naive.worker(esp.url, concurrency=1) as worker:
        (lost,) = naive.enqueue(1)
        wait_for(lambda: len(esp.requests) == 1 and naive.is_idle())
        # Whoever comes later is served, so nothing but the broker's memory has gone.
        (later,) = naive.enqueue(1)
        wait_for(lambda: esp.ledger[later] == 1)
    assert not naive.Mail.objects.get(pk=lost).sent
    assert esp.ledger == {later: 1}


def test_told_to_try_again_it_doubles_what_its_child_died_of(esp: FakeESP) -> None:
    def kill_the_child(_: Any) -> None:
        for child in family(worker.pid):
            child.kill()

    esp.script = [Answer(takes=True, do=kill_the_child)]
    with naive.worker(esp.url, concurrency=1, requeues=True) as worker:
        (doubled,) = naive.enqueue(1)
        wait_for(lambda: esp.ledger == {doubled: 2})

"""The sweep, killed (K21): it holds no lease, only row locks, and whatever a killed one had begun
the next does. Two at once do what one does."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import DataError, connection
from django.db.models.functions import Now

from delivery.calls import shown
from delivery.engine import deliver_batch, drain
from delivery.models import Message
from delivery.routes import Route
from delivery.verdicts import Verdict
from emailauto.sweep import sweep
from events.inbox import MAX_ATTEMPTS
from events.models import Event
from monitoring.services import REPAIRS, SWEEP, idle_seconds
from tests.auditor import audit
from tests.delivery import crashing
from tests.delivery.fakeesp import FakeESP, fake_esp
from tests.factories import EventFactory, MessageFactory, ProviderFactory, SenderFactory
from tests.outage import wait_for_the_end_of_transactions

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("crashes")]


class Died(BaseException):
    """Nobody handles it, as nobody handles the end of a process."""


@pytest.fixture
def esp(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeESP]:
    monkeypatch.setenv("TEST_KEY", "a key")
    with fake_esp() as server:
        yield server


@pytest.fixture(autouse=True)
def _left_behind(esp: FakeESP, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work for every repair: of a batch of five two are done, one is in doubt and two were never
    begun; one claim is orphaned; one hold has lost its switch; one event has killed five workers.
    """
    provider = ProviderFactory(
        key="esp", backend="postmark", api_url=esp.url, secret_env="TEST_KEY", concurrency=1
    )
    sender = SenderFactory(provider=provider)
    MessageFactory.create_batch(5, sender=sender)

    def dies_of_the_third(verdict: Verdict, route: Route) -> Verdict:
        if len(esp.requests) == 3:
            raise Died
        return shown(verdict, route)

    with monkeypatch.context() as patched:
        patched.setattr("delivery.offering.shown", dies_of_the_third)
        with pytest.raises(BaseExceptionGroup) as ended:
            deliver_batch("transactional", limit=5)
    assert ended.group_contains(Died)
    MessageFactory(state="claimed", sender=sender)
    MessageFactory(state="held", sender=sender)
    EventFactory(attempts=MAX_ATTEMPTS, claimed_until=Now() - timedelta(seconds=1))
    Message.objects.filter(lease_until__isnull=False).update(
        lease_until=Now() - timedelta(seconds=1)
    )


def swept() -> None:
    try:
        sweep()
    finally:
        connection.close()


def two_sweeps_at_once() -> None:
    with ThreadPoolExecutor(2) as threads:
        for one in [threads.submit(swept) for _ in range(2)]:
            one.result()


def states() -> Counter[str]:
    return Counter(Message.objects.values_list("state", flat=True))


def assert_everything_ends_once(esp: FakeESP) -> None:
    """Once the workers have had their time, with all seven taken, one of which nobody knows of."""
    while drain("transactional", budget=5):
        pass
    assert audit(ledger=esp.book.entries(), at_rest=True) == []
    assert states() == {"sent": 6, "unknown": 1}
    assert len(esp.ledger) == 7
    assert Event.objects.get().state == "dead"


def test_two_at_once_do_what_one_does(esp: FakeESP) -> None:
    two_sweeps_at_once()
    assert states() == {"sent": 2, "queued": 4, "unknown": 1}
    assert_everything_ends_once(esp)


@pytest.mark.parametrize("point", crashing.SWEEP_POINTS)
def test_k21_killed_sweep_leaves_everything_to_the_next(esp: FakeESP, point: str) -> None:
    assert crashing.start(point).wait(60) == -signal.SIGKILL
    wait_for_the_end_of_transactions()
    two_sweeps_at_once()
    assert_everything_ends_once(esp)


@pytest.mark.parametrize("point", ["rights revoked", "settled, not committed"])
def test_k21_frozen_sweep_holds_up_nobody_but_its_rows_and_those_until_its_end(
    esp: FakeESP, point: str
) -> None:
    frozen = crashing.start(point, signal.SIGSTOP)
    _, status = os.waitpid(frozen.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    two_sweeps_at_once()
    # The batch is locked; claim and hold are free.
    assert states() == {"dispatching": 5, "queued": 2}
    frozen.kill()
    frozen.wait(60)
    wait_for_the_end_of_transactions()
    two_sweeps_at_once()
    assert_everything_ends_once(esp)


@pytest.mark.parametrize("point", ["rights revoked", "settled, not committed"])
def test_k21_frozen_sweep_that_thaws_late_changes_nothing(esp: FakeESP, point: str) -> None:
    frozen = crashing.start(point, signal.SIGSTOP)
    os.waitpid(frozen.pid, os.WUNTRACED)
    two_sweeps_at_once()
    frozen.send_signal(signal.SIGCONT)
    assert frozen.wait(60) == 0
    assert_everything_ends_once(esp)


@pytest.mark.audited(except_={"I10"}, why="a step is made to fail")
@pytest.mark.parametrize(
    ("module", "step"),
    [
        ("delivery.recovery", "release_held"),
        ("emailauto.sweep", "recover"),
        ("emailauto.sweep", "look_back"),
        ("emailauto.sweep", "judge_now_and_then"),
    ],
)
def test_step_that_fails_keeps_nothing_from_being_done_and_is_seen(
    monkeypatch: pytest.MonkeyPatch, module: str, step: str
) -> None:
    def fails() -> int:
        raise DataError("as it may be")

    monkeypatch.setattr(f"{module}.{step}", fails)
    MessageFactory()
    rung: list[str] = []
    monkeypatch.setattr("emailauto.sweep.ring", lambda *lanes: rung.extend(lanes))
    with pytest.raises(ExceptionGroup):
        sweep()
    assert "transactional" in rung
    # The worker lives, and is not to be restarted; monitoring shows that something is not done.
    assert idle_seconds(SWEEP) is not None
    assert idle_seconds(REPAIRS) is None
    monkeypatch.undo()
    sweep()
    assert idle_seconds(REPAIRS) is not None

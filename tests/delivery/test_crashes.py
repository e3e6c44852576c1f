"""The fault catalogue's rows about the death of workers (K07–K20), with real processes, a real
provider on loopback and real signals: no mail twice, none lost, doubts counted."""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psutil
import pytest
from django.db.models.functions import Now

from delivery import recovery, statements
from delivery.engine import deliver_batch, drain
from delivery.models import Attempt, Circuit, Message
from tests.delivery import crashing
from tests.delivery.fakeesp import Answer, FakeESP, fake_esp
from tests.factories import MessageFactory, ProviderFactory, SenderFactory
from tests.outage import wait_for_the_end_of_transactions

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("crashes")]

COUNT = 5


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "a key")


@pytest.fixture(params=["postmark", "resend"])
def esp(request: pytest.FixtureRequest) -> Iterator[FakeESP]:
    with fake_esp(request.param) as server:
        server.kind = request.param  # type: ignore[attr-defined]
        yield server


def five_messages(esp: FakeESP, **provider: Any) -> None:
    kind = getattr(esp, "kind", "postmark")
    fields = {"backend": kind, "api_url": esp.url, "secret_env": "TEST_KEY", "concurrency": 1}
    sender = SenderFactory(provider=ProviderFactory(key="esp", **{**fields, **provider}))
    MessageFactory.create_batch(COUNT, sender=sender)


def end_of(process: "subprocess.Popen[bytes]") -> int:
    """Its exit code, once its locks are gone, too."""
    code = process.wait(60)
    wait_for_the_end_of_transactions()
    return code


def others_take_over(stream: str = "transactional") -> Counter[str]:
    """What the sweep and the other workers do once the dead one's leases have run out."""
    for _ in range(3):
        Message.objects.filter(lease_until__isnull=False).update(
            lease_until=Now() - timedelta(seconds=1)
        )
        recovery.recover()
        Message.objects.filter(state__in=("queued", "retry")).update(due_at=Now())
        for _ in range(COUNT):
            drain(stream, budget=5)
    return Counter(Message.objects.values_list("state", flat=True))


# By point: how many mails stay in doubt with a provider that knows no keys.
DOUBTS = {
    "claimed": 0,  # K07
    "rendering": 0,  # K08
    "before the promise": 0,
    "promised, not committed": 0,  # K19
    "promised": 0,  # K09, and the journal proves that none was begun
    "begun": 1,  # K09
    "answered": 1,  # K12
    "not recorded": 1,  # K12: all but the last are in the journal
    "recorded": 0,  # K13
}


@pytest.mark.parametrize("point", DOUBTS)
def test_killed_worker_loses_and_doubles_nothing(esp: FakeESP, point: str) -> None:
    five_messages(esp)
    assert end_of(crashing.start(point)) == -signal.SIGKILL
    states = others_take_over()
    is_keyed = esp.kind == "resend"  # type: ignore[attr-defined]
    doubts = 0 if is_keyed else DOUBTS[point]
    assert states == +Counter(sent=COUNT - doubts, unknown=doubts)
    # A provider with keys is asked again and answers with the first result.
    assert set(esp.ledger.values()) == {1}
    assert len(esp.ledger) >= COUNT - doubts
    sent = set(Message.objects.filter(state="sent").values_list("pk", flat=True))
    assert sent <= set(esp.ledger)


def five_messages_to_the_sandbox() -> None:
    sandbox = SenderFactory(provider=ProviderFactory(key="sandbox", backend="sandbox"))
    MessageFactory.create_batch(COUNT, sender=sandbox)


@pytest.mark.audited(except_={"I10"}, why="there is no room for a thread")
def test_provider_whose_calls_cannot_be_begun_costs_the_others_nothing(
    esp: FakeESP, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Any) -> Any:
        raise RuntimeError("can't start new thread")

    five_messages(esp)
    five_messages_to_the_sandbox()
    with monkeypatch.context() as patched:
        patched.setattr("delivery.backends.client.client._loop", None)
        patched.setattr("delivery.backends.client.threading.Thread.start", fails)
        deliver_batch("transactional", limit=2 * COUNT)
    found = Counter(Message.objects.values_list("state", flat=True))
    assert found == {"sent": COUNT, "retry": 1, "queued": COUNT - 1}
    Circuit.objects.update(open_until=None)
    assert others_take_over() == {"sent": 2 * COUNT}
    assert set(esp.ledger.values()) == {1}


@pytest.mark.audited(except_={"I10"}, why="the handing over is made to fail")
def test_outcomes_are_recorded_although_another_providers_hand_over_ends_with_an_error(
    esp: FakeESP, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise ZeroDivisionError

    five_messages_to_the_sandbox()
    five_messages(esp)
    with monkeypatch.context() as patched:
        patched.setattr("delivery.httprun.HttpRun.all_of_it", fails)
        with pytest.raises(ZeroDivisionError):
            deliver_batch("transactional", limit=2 * COUNT)
    found = Counter(Message.objects.values_list("state", flat=True))
    assert found == {"sent": COUNT, "dispatching": COUNT}
    assert others_take_over() == {"sent": 2 * COUNT}
    assert set(esp.ledger.values()) == {1}


def test_k10_killed_with_half_the_body_written(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_esp() as esp:
        five_messages(esp)

        def kill(handler: Any) -> None:
            handler.rfile.read(int(handler.headers["Content-Length"]) // 2)
            os.kill(process.pid, signal.SIGKILL)

        esp.script = [Answer(at_once=kill)]
        process = crashing.start("")
        assert end_of(process) == -signal.SIGKILL
        assert others_take_over() == {"sent": 4, "unknown": 1}
        assert set(esp.ledger.values()) == {1}
        assert len(esp.ledger) == 4


def test_k11_killed_after_it_was_taken_before_the_answer_was_read() -> None:
    with fake_esp() as esp:
        five_messages(esp)
        esp.script = [Answer(takes=True, do=lambda _: os.kill(process.pid, signal.SIGKILL))]
        process = crashing.start("")
        assert end_of(process) == -signal.SIGKILL
        assert others_take_over() == {"sent": 4, "unknown": 1}
        assert set(esp.ledger.values()) == {1}
        assert len(esp.ledger) == COUNT


def test_k15_message_that_kills_every_worker_ends_in_the_dead_letters() -> None:
    with fake_esp() as esp:
        five_messages(esp)
        poison = Message.objects.order_by("pk").first()
        assert poison is not None
        Message.objects.exclude(pk=poison.pk).update(due_at=Now() + timedelta(hours=1))
        for _ in range(statements.MAX_CRASHES):
            assert end_of(crashing.start("rendering")) == -signal.SIGKILL
            Message.objects.filter(state="claimed").update(lease_until=Now() - timedelta(seconds=1))
            recovery.recover()
        assert others_take_over() == {"dead": 1, "sent": 4}
        assert poison.pk not in esp.ledger


@pytest.fixture
def slow_esp() -> Iterator[FakeESP]:
    """With five mails for it, there before any worker is: one of its processes takes them all."""
    with fake_esp() as esp:
        five_messages(esp, concurrency=2)
        esp.usual.seconds = 0.4
        yield esp


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_k16_k18_worker_that_is_told_to_end_leaves_no_doubt(slow_esp: FakeESP, number: int) -> None:
    esp = slow_esp
    with crashing.celery_worker() as worker:
        wait_for(lambda: len(esp.requests) >= 2)
        worker.send_signal(number)
        assert end_of(worker) == 0
        states = Counter(Message.objects.values_list("state", flat=True))
        assert states["unknown"] == states["dispatching"] == 0
        esp.usual.seconds = 0
        assert others_take_over() == {"sent": COUNT}
        assert set(esp.ledger.values()) == {1}


@pytest.mark.parametrize("victim", ["child", "parent", "group"])
def test_k14_k17_killed_worker_leaves_a_doubt_per_connection_at_most(
    slow_esp: FakeESP, victim: str
) -> None:
    esp = slow_esp
    with crashing.celery_worker() as worker:
        wait_for(lambda: len(esp.requests) >= 2)
        family = psutil.Process(worker.pid).children(recursive=True)
        if victim in ("child", "group"):
            for child in family:
                child.kill()
        if victim in ("parent", "group"):
            worker.kill()
            end_of(worker)
        _, alive = psutil.wait_procs(family, timeout=60)
        assert alive == []
    # Nobody is left who takes a lease, which those who take over would call expired.
    esp.usual.seconds = 0
    states = others_take_over()
    assert states["sent"] >= COUNT - 2
    assert states["sent"] + states["unknown"] == COUNT
    assert set(esp.ledger.values()) == {1}
    assert len(esp.ledger) >= states["sent"]


@pytest.mark.parametrize("point", DOUBTS)
def test_k20_worker_frozen_past_its_lease_sends_nothing_when_it_thaws(point: str) -> None:
    with fake_esp() as esp:
        five_messages(esp)
        process = crashing.start(point, signal.SIGSTOP)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        if point == "promised, not committed":
            # Its transaction holds the rows; PostgreSQL ends it after a minute of silence.
            process.kill()
            end_of(process)
        states = others_take_over()
        process.send_signal(signal.SIGCONT)
        process.wait(60)
        assert max(esp.ledger.values()) == 1
        final = Counter(Message.objects.values_list("state", flat=True))
        assert sum(final.values()) == COUNT
        assert final["unknown"] <= 1
        assert final["sent"] >= states["sent"] >= COUNT - 1


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def test_attempts_are_logged_once_whatever_happened() -> None:
    with fake_esp() as esp:
        five_messages(esp)
        assert end_of(crashing.start("recorded")) == -signal.SIGKILL
        others_take_over()
        assert Attempt.objects.count() == COUNT

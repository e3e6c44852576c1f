"""The death of a worker in the middle of a dialogue over SMTP, where one mail's text and the next
one's announcement are on the wire together: no mail twice, none lost, one doubt at most."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from delivery.connections import pool
from delivery.models import Message
from tests.delivery import crashing
from tests.delivery.fakesmtp import FakeSMTP, fake_smtp
from tests.delivery.test_crashes import end_of, others_take_over
from tests.factories import MessageFactory, ProviderFactory, SenderFactory

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("crashes")]

COUNT = 5


@pytest.fixture(autouse=True)
def _no_kept_connections() -> Iterator[None]:
    yield
    pool.close()


def five_messages(smtp: FakeSMTP, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SMTP_URL", smtp.url)
    fields = {"backend": "smtp", "secret_env": "TEST_SMTP_URL", "concurrency": 1}
    sender = SenderFactory(provider=ProviderFactory(key="smtp", **fields))
    MessageFactory.create_batch(COUNT, sender=sender)


def taken_once(smtp: FakeSMTP) -> set[Any]:
    counts = smtp.book.counts()
    assert set(counts.values()) == {1}
    sent = set(Message.objects.filter(state="sent").values_list("pk", flat=True))
    assert sent <= set(counts)
    return set(counts)


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("point", crashing.SMTP_POINTS)
def test_killed_between_its_steps_it_leaves_one_doubt(
    monkeypatch: pytest.MonkeyPatch, point: str, pipelining: bool
) -> None:
    with fake_smtp(pipelining=pipelining) as smtp:
        five_messages(smtp, monkeypatch)
        assert end_of(crashing.start(point, time=3)) == -signal.SIGKILL
        # The second mail, which is noted as the third begins; or the third.
        assert others_take_over() == {"sent": COUNT - 1, "unknown": 1}
        assert len(taken_once(smtp)) >= COUNT - 1


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("event", ["MAIL", "RCPT", "DATA", "text", "taken"])
def test_killed_while_the_server_works_it_leaves_one_doubt_at_most(
    monkeypatch: pytest.MonkeyPatch, event: str, at_once: bool
) -> None:
    with fake_smtp(at_once=at_once) as smtp:
        five_messages(smtp, monkeypatch)

        def kill() -> str:
            os.kill(process.pid, signal.SIGKILL)
            return "354 go on" if event == "DATA" else "250 OK"

        smtp.script = {(event, 3): kill}
        process = crashing.start("")
        assert end_of(process) == -signal.SIGKILL
        states = others_take_over()
        assert states in (Counter(sent=COUNT - 1, unknown=1), Counter(sent=COUNT))
        assert len(taken_once(smtp)) >= COUNT - 1


@pytest.mark.parametrize("point", crashing.SMTP_POINTS)
def test_frozen_past_its_lease_it_sends_nothing_when_it_thaws(
    monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    with fake_smtp() as smtp:
        five_messages(smtp, monkeypatch)
        process = crashing.start(point, signal.SIGSTOP, time=3)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        others_take_over()
        os.kill(process.pid, signal.SIGCONT)
        process.wait(60)
        taken_once(smtp)
        final = Counter(Message.objects.values_list("state", flat=True))
        assert final in (Counter(sent=COUNT - 1, unknown=1), Counter(sent=COUNT))

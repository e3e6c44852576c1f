"""Several connections at once, switches that are thrown meanwhile, providers that share a batch."""

import threading
import time
from typing import Any

import pytest
from django.db import OperationalError

from delivery.engine import deliver_batch
from delivery.models import Attempt, Message
from delivery.services import stop_sending
from tests.delivery.fakeesp import FakeESP, fake_esp
from tests.delivery.test_esp_faults import (
    _set_up,  # noqa: F401 - the same
    deliver,
    messages_through,
    states,
)

pytestmark = pytest.mark.django_db


def test_slow_provider_is_served_by_several_connections(esp: FakeESP, settings: Any) -> None:
    settings.EMAIL_TIMEOUT = 10
    messages_through(esp.url, 12, concurrency=4)
    esp.usual.seconds = 0.2
    busy = Busy(esp, wanted=4)
    deliver()
    assert states() == ["sent"] * 12
    assert set(esp.ledger.values()) == {1}
    assert busy.most == 4
    assert esp.connections <= 5


class Busy:
    """How many requests were being answered at once. One call goes alone, then two; the others
    are held until there are as many as are `wanted`, and a moment more."""

    def __init__(self, esp: FakeESP, *, wanted: int) -> None:
        self.most = 0
        self._now = self._begun = 0
        changed = threading.Condition()
        take = esp.take

        def counting(*mail: Any) -> None:
            with changed:
                self._now += 1
                self._begun += 1
                self.most = max(self.most, self._now)
                changed.notify_all()
                if self._begun > 3:
                    changed.wait_for(lambda: self.most >= wanted, timeout=5)
            take(*mail)
            time.sleep(0.15)
            with changed:
                self._now -= 1

        esp.take = counting  # type: ignore[method-assign]


@pytest.mark.parametrize("target", [("everything", ""), ("provider", "esp"), ("campaign", "c1")])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_r06_switch_bites_in_the_middle_of_a_batch(
    esp: FakeESP, settings: Any, target: tuple[str, str], concurrency: int
) -> None:
    settings.EMAIL_TIMEOUT = 10
    messages_through(esp.url, 25, concurrency=concurrency)
    Message.objects.update(origin_campaign="c1")
    esp.usual.seconds = 0.25
    take = esp.take

    def then_stop(*mail: Any) -> None:
        take(*mail)
        if len(esp.requests) >= 2:
            thrown.set()

    thrown = threading.Event()
    esp.take = then_stop  # type: ignore[method-assign]

    def throw() -> None:
        stop_sending(*target)

    # In the same transaction as the test's, which no other connection could see into.
    from delivery import engine

    as_usual = engine.active_switches

    def looking() -> Any:
        if thrown.is_set():
            throw()
        return as_usual()

    engine.active_switches = looking  # type: ignore[assignment]
    try:
        deliver_batch("transactional", limit=25)
    finally:
        engine.active_switches = as_usual  # type: ignore[assignment]
    # Within a second: what was on its way, and what was begun until the next look.
    assert 2 <= len(esp.requests) <= 2 + 4 * concurrency
    assert sorted(set(states())) == ["queued", "sent"]
    assert Attempt.objects.count() == len(esp.requests)
    deliver()
    assert sorted(set(states())) == ["held", "sent"]
    assert set(esp.ledger.values()) == {1}


@pytest.mark.parametrize("concurrency", [1, 4])
def test_outcomes_are_recorded_although_the_switches_cannot_be_read(
    esp: FakeESP, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    messages_through(esp.url, 12, concurrency=concurrency)
    esp.usual.seconds = 0.2
    looks = 0

    def failing() -> Any:
        nonlocal looks
        looks += 1
        raise OperationalError("gone")

    monkeypatch.setattr("delivery.engine.active_switches", failing)
    # Inside the test's transaction a closed connection would be the end of it.
    monkeypatch.setattr("delivery.turns.connection.close", lambda: None)
    deliver_batch("transactional", limit=25)
    assert looks == 1
    assert set(states()) == {"sent", "queued"}
    assert states().count("sent") == len(esp.requests) == len(esp.ledger)


def test_slow_provider_leaves_time_for_the_others(esp: FakeESP) -> None:
    messages_through(esp.url, 12, concurrency=1)
    esp.usual.seconds = 0.5
    with fake_esp() as fast:
        messages_through(fast.url, 3, key="fast")
        deliver_batch("transactional", limit=25)
        assert len(fast.ledger) == 3

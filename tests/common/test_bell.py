"""The doorbell without Redis: an intake that does not notice it leaving."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from common import bell
from common.bell import answer, ring
from tests.outage import redis_away


@pytest.fixture(autouse=True)
def _heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bell, "_silent_until", 0.0)


@pytest.mark.parametrize("hangs", [False, True])
def test_ring_without_redis_neither_raises_nor_waits(hangs: bool, caplog: Any) -> None:
    with redis_away(hangs=hangs), ThreadPoolExecutor(1) as pool:
        pool.submit(ring, "events", "timers").result(timeout=30)
    assert [(record.message, record.lane) for record in caplog.records] == [
        ("bell unheard", "events")
    ]


def test_ring_stays_silent_for_a_moment_after_redis_was_away(
    monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(bell, "_SULK_SECONDS", 600.0)
    with redis_away():
        ring("events")
        ring("events")
    ring("events")
    assert len(caplog.records) == 1


@pytest.mark.parametrize("hangs", [False, True])
def test_answer_without_redis_neither_raises_nor_waits(hangs: bool) -> None:
    with redis_away(hangs=hangs), ThreadPoolExecutor(1) as pool:
        assert pool.submit(answer, "events").result(timeout=30) is None

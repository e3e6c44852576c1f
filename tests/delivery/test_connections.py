"""Connections kept for the next batch."""

import os
import threading
import time
from typing import Any

import pytest
from django.core.mail.backends.base import BaseEmailBackend

from delivery import connections
from delivery.connections import ConnectionPool
from delivery.providers import Traits
from delivery.routes import Route


class Backend(BaseEmailBackend):
    """Counts its farewells; some of them fail."""

    def __init__(self, name: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.closed = 0

    def close(self) -> None:
        self.closed += 1
        raise OSError("nobody there")


def route(name: str) -> Route:
    return Route(Traits(f"{__name__}.Backend"), {"name": name})


def borrowed(pool: ConnectionPool, provider: str, name: str = "a") -> Any:
    with pool.borrow(provider, route(name)) as connection:
        return connection


def test_next_borrower_gets_the_connection_that_rests() -> None:
    pool = ConnectionPool()
    first = borrowed(pool, "p")
    assert borrowed(pool, "p") is first
    assert borrowed(pool, "q") is not first
    assert first.closed == 0


def test_two_at_once_get_one_each_and_one_is_kept() -> None:
    pool = ConnectionPool()
    with pool.borrow("p", route("a")) as one, pool.borrow("p", route("a")) as two:
        assert one is not two
    assert borrowed(pool, "p") in (one, two)
    assert [one.closed, two.closed].count(1) == 1


def test_connection_of_another_route_is_not_used() -> None:
    pool = ConnectionPool()
    before = borrowed(pool, "p", "old key")
    assert borrowed(pool, "p", "new key") is not before
    assert before.closed == 1


def test_connection_is_closed_when_its_borrower_fails() -> None:
    pool = ConnectionPool()
    with pytest.raises(RuntimeError), pool.borrow("p", route("a")) as connection:
        raise RuntimeError
    assert connection.closed == 1
    assert borrowed(pool, "p") is not connection


def test_forked_process_does_not_speak_over_its_parents_connection() -> None:
    resting = borrowed(connections.pool, "p")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = int(borrowed(connections.pool, "p") is resting or resting.closed > 0)
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert borrowed(connections.pool, "p") is resting
    connections.pool.close()


def test_connection_that_rests_too_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_REST_SECONDS", 0.0)
    pool = ConnectionPool()
    resting = borrowed(pool, "p")
    deadline = time.monotonic() + 20
    while not resting.closed and time.monotonic() < deadline:
        time.sleep(0.05)
    assert resting.closed == 1
    # The thread that looks after them goes with the last one, and another comes when needed.
    while any(t.name == "reaper" for t in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.05)
    again = borrowed(pool, "p")
    while not again.closed and time.monotonic() < deadline:
        time.sleep(0.05)
    assert again.closed == 1

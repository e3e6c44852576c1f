"""Connections to providers, kept for the next batch: greeting, TLS and login cost more than a mail.

A connection belongs to whoever borrows it; one that rests too long is closed, so that no server
has to hang up on us.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.core.mail.backends.base import BaseEmailBackend

from delivery.routes import Route

_REST_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Resting:
    route: Route
    connection: BaseEmailBackend
    since: float


class ConnectionPool:
    """At most one resting connection per provider."""

    def __init__(self) -> None:
        self._resting: dict[str, _Resting] = {}
        self._lock = threading.Lock()
        self._reaper: threading.Thread | None = None

    @contextmanager
    def borrow(self, provider: str, route: Route) -> Iterator[BaseEmailBackend]:
        """The provider's connection, resting or new and then not yet open."""
        connection = self._taken(provider, route) or route.connection()
        try:
            yield connection
        except BaseException:
            _close(connection)
            raise
        self._rest(provider, _Resting(route, connection, time.monotonic()))

    def forget(self) -> None:
        """In a child: what rests is the parent's, and two must not speak over one connection. It
        is not said goodbye to."""
        self.__init__()  # type: ignore[misc]

    def close(self) -> None:
        """Close what rests."""
        with self._lock:
            resting = list(self._resting.values())
            self._resting.clear()
        for kept in resting:
            _close(kept.connection)

    def _taken(self, provider: str, route: Route) -> BaseEmailBackend | None:
        with self._lock:
            kept = self._resting.pop(provider, None)
        if kept is None or kept.route == route:
            return kept.connection if kept else None
        _close(kept.connection)
        return None

    def _rest(self, provider: str, kept: _Resting) -> None:
        with self._lock:
            before = self._resting.pop(provider, None)
            self._resting[provider] = kept
            if self._reaper is None or not self._reaper.is_alive():
                reaper = threading.Thread(target=self._reap, name="reaper", daemon=True)
                # Where there is no room for one, the next one closes what rests too long.
                with contextlib.suppress(RuntimeError):
                    reaper.start()
                    self._reaper = reaper
        if before is not None:
            _close(before.connection)

    def _reap(self) -> None:
        while True:
            time.sleep(1.0)
            oldest = time.monotonic() - _REST_SECONDS
            with self._lock:
                tired = [name for name, kept in self._resting.items() if kept.since < oldest]
                closing = [self._resting.pop(name) for name in tired]
                if not self._resting:
                    self._reaper = None
            for kept in closing:
                _close(kept.connection)
            if self._reaper is not threading.current_thread():
                return


def _close(connection: BaseEmailBackend) -> None:
    # A fault while saying goodbye changes nothing about what was accepted.
    with contextlib.suppress(Exception):
        connection.close()


pool = ConnectionPool()
os.register_at_fork(after_in_child=pool.forget)

"""Ending a consumer by SIGTERM or SIGINT."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(BaseException):
    """A stop was asked for during a wait. No `Exception`, so that no library swallows it."""


class Stop:
    """A request to end. The first signal lets the batch in hand be finished; a second one ends
    the process where it stands, and the broker delivers again what was in hand."""

    def __init__(self) -> None:
        self._is_requested = False
        self._is_waiting = False

    @property
    def is_requested(self) -> bool:
        return self._is_requested

    def listen(self) -> None:
        """Hear the signals from now on. Main thread only."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hear)

    def check(self) -> None:
        """Raise `Stopped` if it is time to end."""
        if self.is_requested:
            raise Stopped

    @contextmanager
    def breaking(self) -> Iterator[None]:
        """Around a wait of which nothing is lost: a signal raises `Stopped` out of it at once."""
        self._is_waiting = True
        try:
            self.check()
            yield
        finally:
            self._is_waiting = False

    def sleep(self, seconds: float) -> None:
        """Sleep; raises `Stopped`."""
        with self.breaking():
            time.sleep(seconds)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if self._is_requested:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._is_requested = True
        if self._is_waiting:
            raise Stopped

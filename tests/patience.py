"""A limit for what might never end, by this process's own CPU: a busy machine breaks no test."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def cpu_limit(seconds: float = 30.0) -> Iterator[None]:
    """Fail what takes so much; what backtracks or explodes would take hours."""

    def stop(_number: int, _frame: object) -> None:
        pytest.fail(f"it took {seconds} seconds of CPU and went on")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)

"""Signals, noticed where the supervisor waits instead of anywhere in its code."""

import os
import select
import signal
import socket
from types import FrameType, TracebackType
from typing import Self

from emailauto.supervisor.exceptions import StopRequested

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PARENT_CHECK_SECONDS = 1.0


class Signals:
    """While entered, `pause` wakes at a child's death and raises when we are asked to stop.

    With `watch_parent`, the death of the process that started us asks too: a SIGKILL of `make`
    reaches no one else.
    """

    def __init__(self, *, watch_parent: bool) -> None:
        self._parent = os.getppid() if watch_parent else None
        self._requests = 0
        self._reader, self._writer = socket.socketpair()
        self._before: dict[signal.Signals, signal._HANDLER] = {}
        self._wakeup_before = -1

    def __enter__(self) -> Self:
        for end in (self._reader, self._writer):
            end.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in (*_STOPPING, signal.SIGCHLD):
            self._before[number] = signal.getsignal(number)
            # Under nohup a closed terminal is to be survived.
            if (number, self._before[number]) != (signal.SIGHUP, signal.SIG_IGN):
                signal.signal(number, self._count)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._reader.close()
        self._writer.close()

    @property
    def is_hurried(self) -> bool:
        """Whether the request to stop was repeated."""
        return self._requests > 1

    def pause(self, seconds: float) -> None:
        """Wait, at most until the next signal; raise `StopRequested` once that was asked for."""
        if self._parent is None:
            self._wait(seconds)
        else:
            self._wait(min(seconds, _PARENT_CHECK_SECONDS))
            if os.getppid() != self._parent:
                self._requests += 1
        if self._requests:
            raise StopRequested

    def _count(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._requests += 1

    def _wait(self, seconds: float) -> None:
        readable, _, _ = select.select([self._reader], [], [], max(seconds, 0.0))
        if readable:
            self._reader.recv(4096)

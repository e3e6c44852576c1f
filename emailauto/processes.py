"""Child processes that do not leave half of themselves behind, and do not outlive us on Linux.

Every child leads a session: a Ctrl-C in the terminal reaches only us, and what the child forked
can be ended with it. What is left all the same, `orphans` finds.
"""

import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_LOG_BYTES = 10 * 1024 * 1024
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Identity:
    """The system user a process runs as."""

    name: str
    uid: int
    gid: int


def _nothing() -> None:
    """The process leaves nothing outside its group."""


@dataclass(frozen=True, slots=True)
class Process:
    """What to run and how it wants to be ended.

    `env` is the whole environment. `sweep` ends what a dead predecessor may have left outside
    its process group; it runs before every start and after every end.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    identity: Identity | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace: float = 10.0
    """Seconds between `stop_signal` and SIGKILL."""
    sweep: Callable[[], None] = _nothing


class Child:
    """A `Process` and, after its death, its successors: at most one of them runs."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._running: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0

    @property
    def name(self) -> str:
        return self.process.name

    @property
    def pid(self) -> int | None:
        """The id of the running process; None before `start` and after `stop` or `kill`."""
        return self._running.pid if self._running else None

    @property
    def uptime(self) -> float:
        """Seconds since the last start; 0 when there is none."""
        return time.monotonic() - self._started_at if self._running else 0.0

    def start(self) -> None:
        """Start the process; its output is appended to its log."""
        process = self.process
        process.sweep()
        with _open_log(process.log) as log:
            self._running = subprocess.Popen(
                process.argv,
                env=dict(process.env),
                cwd=process.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=signalled_with_parent(process.stop_signal),
                **become(process.identity),
            )
        self._started_at = time.monotonic()

    def exit_code(self) -> int | None:
        """Return what the process ended with (a signal as its negative number), or None."""
        return self._running.poll() if self._running else None

    def stop(self, *, is_hurried: Callable[[], bool] = lambda: False) -> None:
        """Ask the process to end, wait out its grace or the hurry, then `kill` what is left."""
        if self._running is None:
            return
        self._running.send_signal(self.process.stop_signal)
        deadline = time.monotonic() + self.process.grace
        while self._running.poll() is None and time.monotonic() < deadline and not is_hurried():
            time.sleep(0.02)
        self.kill()

    def kill(self) -> None:
        """End the process and all it forked, at once."""
        if self._running is None:
            return
        _kill_group(self._running.pid)
        self._running.wait()
        self._running = None
        self.process.sweep()


def become(identity: Identity | None) -> dict[str, Any]:
    """Return the arguments with which `subprocess` drops root for `identity`, groups included."""
    if identity is None:
        return {}
    return {"user": identity.uid, "group": identity.gid, "extra_groups": []}


def signalled_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """Return a `preexec_fn` that makes the kernel send `number` when this process dies.

    `subprocess` calls it after it changed the user, as it must: changing the user clears it.
    The signal is tied to the thread that forks, hence: start children from the main thread.
    """
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def ask_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # it died between the fork and the line above
            os._exit(1)

    return ask_kernel


def _kill_group(leader: int) -> None:
    """Kill the group that a child of ours has led; its id stays taken while a member lives."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses zombies
        os.killpg(leader, signal.SIGKILL)


@contextlib.contextmanager
def _open_log(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for appending, mode 0600; a log past its size is moved aside first."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > _LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
    with open(path, "ab", opener=functools.partial(os.open, mode=0o600)) as log:
        yield log


def tail(path: Path, lines: int = 20) -> str:
    """Return the last lines of a log."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])

"""Processes that nobody watches any more: recognised with certainty, then ended.

On Linux the kernel signals a child whose parent died. It does not reach what that child forked,
and other systems have nothing like it.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from emailauto.files import write_private
from emailauto.processes import Child

_PATIENCE = 5.0
# Seconds by which the birth of one process may differ between two readings: it is computed from
# the time of boot, which the kernel rounds anew. No pid comes round again that fast.
_CLOCK_DRIFT = 2.0


def end_all(found: Iterable[psutil.Process], *, polite: signal.Signals, patience: float) -> None:
    """Send `polite`, wait up to `patience` seconds for the last to end, then SIGKILL the rest."""
    remaining = list(found)
    for number, seconds in ((polite, patience), (signal.SIGKILL, 5.0)):
        for process in remaining:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        deadline = time.monotonic() + seconds
        while (remaining := list(filter(_runs, remaining))) and time.monotonic() < deadline:
            time.sleep(0.02)


def working_in(directory: Path, *, name: str) -> list[psutil.Process]:
    """Return the processes called `name` whose working directory is `directory`.

    The servers stay in their data directory, and nothing else called like them does. It finds
    what no pid leads to: PostgreSQL's backends lead sessions of their own and may outlive a
    killed postmaster.
    """
    place = os.path.realpath(directory)
    return [
        process
        for process in psutil.process_iter(["name"])
        if process.info["name"] == name and _working_directory(process) == place
    ]


def tops(found: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those that none of the others is the parent of."""
    processes = list(found)
    pids = {process.pid for process in processes}
    top = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.ppid() not in pids:
                top.append(process)
    return top


class Ledger:
    """`processes.json`: whom a supervisor started, kept for the successor of a killed one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def record(self, children: Iterable[Child]) -> None:
        """Replace what is recorded by those of `children` that run."""
        rows = [
            {"pid": child.pid, "born": _birth(child.pid), "signal": int(child.process.stop_signal)}
            for child in children
            if child.pid is not None and child.exit_code() is None
        ]
        document = {"directory": str(self._path.parent), "processes": rows}
        write_private(self._path, json.dumps(document, indent=1))

    def forget(self) -> None:
        """Remove the file: nothing runs any more."""
        self._path.unlink(missing_ok=True)

    def end_orphans(self) -> int:
        """End what is recorded and still runs, with all it forked; return how many there were.

        A ledger that came here in a copy of another directory names the other's processes.
        """
        ended = 0
        for row in self._recorded():
            orphans = _session_of(row["pid"], born=row["born"], var=self._path.parent)
            end_all(orphans, polite=signal.Signals(row["signal"]), patience=_PATIENCE)
            ended += len(orphans)
        self.forget()
        return ended

    def _recorded(self) -> list[dict[str, Any]]:
        try:
            document = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        is_ours = isinstance(document, dict) and document.get("directory") == str(self._path.parent)
        return document["processes"] if is_ours else []


def _session_of(leader: int, *, born: float, var: Path) -> list[psutil.Process]:
    """Return the living processes of the session that `leader`, born then, has led.

    A pid is not given away while a session bears it, but may have been before and since: so the
    leader counts only if it was born when we recorded it, and, when it is gone, a member only if
    it carries our EMAILAUTO_VAR.
    """
    try:
        leads = abs(psutil.Process(leader).create_time() - born) < _CLOCK_DRIFT
    except psutil.NoSuchProcess:
        leads = None
    if leads is False:
        return []
    members = [
        process
        for process in psutil.process_iter()
        if _session(process) == leader and _runs(process)
    ]
    return members if leads else [process for process in members if _serves(process, var)]


def _runs(process: psutil.Process) -> bool:
    """Whether it is more than a zombie: in a container there may be nobody to reap orphans."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except OSError:
        return None


def _serves(process: psutil.Process, var: Path) -> bool:
    try:
        return process.environ().get("EMAILAUTO_VAR") == str(var)
    except psutil.Error:
        return False


def _working_directory(process: psutil.Process) -> str | None:
    try:
        return process.cwd()
    except psutil.Error:  # gone meanwhile, or another user's
        return None


def _birth(pid: int) -> float:
    return psutil.Process(pid).create_time()

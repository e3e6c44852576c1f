"""The children as a whole: started in order, restarted when they die, stopped in reverse."""

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from emailauto.orphans import Ledger
from emailauto.processes import Child, Process

_FIRST_DELAY = 0.2
_LONGEST_DELAY = 5.0
_STABLE_SECONDS = 30.0
"""Who lived this long is restarted without the delay its earlier deaths have earned."""


@dataclass(slots=True)
class _Member:
    child: Child
    deaths: int = 0
    """In a row, each before `_STABLE_SECONDS`."""
    restart_at: float | None = None
    """When it is due, on the monotonic clock; None while it runs."""


class Family:
    """All children of the supervisor. `say` gets a line for every event an operator wants to see.

    `on_change` is called after a restart, when the process ids are new.
    """

    def __init__(
        self, ledger: Ledger, *, say: Callable[[str], None], on_change: Callable[[], None]
    ) -> None:
        self._ledger = ledger
        self._say = say
        self._on_change = on_change
        self._members: dict[str, _Member] = {}

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name, of those that run."""
        found = {name: member.child.pid for name, member in self._members.items()}
        return {name: pid for name, pid in found.items() if pid is not None}

    def uptime(self, name: str) -> float:
        """Seconds since the child's last start; endless for what is not ours to start."""
        member = self._members.get(name)
        return member.child.uptime if member else math.inf

    def deaths(self, name: str) -> int:
        """How often it died in a row, each time soon after its start."""
        return self._members[name].deaths

    def start(self, process: Process) -> Child:
        """Start `process` and watch it from now on."""
        member = _Member(Child(process))
        self._members[process.name] = member
        member.child.start()
        self._record()
        return member.child

    def tend(self) -> float:
        """Notice deaths, restart who is due; return the seconds until the next one is."""
        for member in self._members.values():
            code = member.child.exit_code()
            if code is not None:
                self._bury(member, code)
            if member.restart_at is not None and member.restart_at <= time.monotonic():
                self._restart(member)
        due = [m.restart_at for m in self._members.values() if m.restart_at is not None]
        return min(due) - time.monotonic() if due else math.inf

    def restart(self, name: str, reason: str) -> None:
        """Stop and start a child that runs but does not do its work."""
        self._say(f"{name} {reason}; restarting it.")
        member = self._members[name]
        member.child.stop()
        self._restart(member)

    def stop(self, *, is_hurried: Callable[[], bool]) -> None:
        """Stop everyone, the last started first."""
        for member in reversed(self._members.values()):
            member.child.stop(is_hurried=is_hurried)
        self._ledger.forget()

    def _bury(self, member: _Member, code: int) -> None:
        """Kill what the dead child left of its group, and say when the next one comes."""
        member.deaths = 1 if member.child.uptime > _STABLE_SECONDS else member.deaths + 1
        member.child.kill()
        delay = min(_FIRST_DELAY * 2 ** (member.deaths - 1), _LONGEST_DELAY)
        member.restart_at = time.monotonic() + delay
        self._say(
            f"{member.child.name} ended ({_describe(code)}); restarting it in {delay:.1f} s. "
            f"Its log: {member.child.process.log}"
        )

    def _restart(self, member: _Member) -> None:
        try:
            member.child.start()
        except OSError as error:  # a full disk or process table may pass
            member.restart_at = time.monotonic() + _LONGEST_DELAY
            self._say(f"{member.child.name} cannot be started: {error}")
            return
        member.restart_at = None
        try:
            self._record()
            self._on_change()
        except OSError as error:
            self._say(f"The new process id of {member.child.name} cannot be written down: {error}")

    def _record(self) -> None:
        self._ledger.record(member.child for member in self._members.values())


def _describe(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name

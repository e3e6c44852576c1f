"""Whose turn it is: one provider's share of a batch, in the order of its pace. Its connections take
from it; what was switched off or barred meanwhile, or has no time left, is never begun."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from django.db import Error, connection

from delivery.outbound import Outbound
from delivery.quotas import Reserved
from delivery.verdicts import Blame, Outcome, Verdict

# A kill switch has to bite within a second.
LOOK_SECONDS = 0.4
REFUSALS = 20
"""So many mails in a row that a provider refuses for good, whoever they are for, are our fault or
its own: those after them had better wait."""
_UNROUTED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Departed:
    """A message whose hand-over is committed: the number of this attempt, the moment
    (`time.monotonic`) from which its provider's pace allows it, and what it counts against."""

    outbound: Outbound
    attempt: int
    not_before: float
    reserved: Sequence[Reserved] = ()
    is_probe: bool = False
    """It tries whether its provider is back."""


@dataclass(frozen=True, slots=True)
class Handed:
    """What came of a departed message."""

    departed: Departed
    verdict: Verdict
    is_echo: bool = False
    """Another message has the same answer to the same call; it counts once against the provider."""


def no_way(why: str) -> Verdict:
    """The verdict where a provider cannot be used as it is set up."""
    return Verdict(Outcome.RETRY, why, retry_after=_UNROUTED_SECONDS, blame=Blame.ROUTE)


class Refusals:
    """How many there have been in a row."""

    def __init__(self) -> None:
        self._count = 0

    def are_too_many(self, handed: Iterable[Handed]) -> bool:
        """Whether there are, with these as the latest."""
        for one in handed:
            if not one.is_echo:
                self._count = self._count + 1 if one.verdict.is_plain_refusal else 0
        return self._count >= REFUSALS


Stops = Callable[[], Callable[[Departed], bool]]
"""Asked now and then: which messages must not be begun any more?"""


class Turns:
    """The messages that wait, and what came of the others. What is left when it is over was not
    begun."""

    def __init__(
        self, group: Sequence[Departed], deadline: float, stops: Stops, *, lease_end: float
    ) -> None:
        """`group` in the order of `not_before`; no message begins after `deadline`, and at
        `lease_end` it is over."""
        self.handed: list[Handed] = []
        self.deadline = deadline
        self._lease_end = lease_end
        self._waiting = deque(group)
        self._ask = stops
        self._is_stopped: Callable[[Departed], bool] = lambda _: False
        self._barred: set[str] = set()
        """Sending domains that the provider has just refused."""
        self._refusals = Refusals()
        self._looked_at = time.monotonic()
        self._over = threading.Event()
        self._taking = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_over(self) -> bool:
        """Nothing more may begin, nor be offered again: what is left of it when the lease is over
        may be somebody else's by now."""
        return self._over.is_set() or time.monotonic() >= self._lease_end

    def end(self) -> None:
        """Let nothing more begin, on any connection."""
        self._over.set()

    def all(self) -> list[Departed]:
        """All that wait, for whoever puts them together as calls and minds the pace itself."""
        with self._taking:
            taken = list(self._waiting)
            self._waiting.clear()
        return taken

    def next(self, size: int) -> list[Departed]:
        """The next messages to begin, up to `size`, once the pace allows them; none when there are
        none, or no time for them."""
        while True:
            with self._taking:
                chunk = [self._waiting.popleft() for _ in range(min(size, len(self._waiting)))]
            if not chunk or not self._wait_until(chunk[-1].not_before):
                return []
            if allowed := [item for item in chunk if self.may_begin(item)]:
                return allowed

    def due(self) -> Departed | None:
        """The next message if it may begin at this moment."""
        now = time.monotonic()
        with self._taking:
            while not self.is_over and now < self.deadline and self._waiting:
                if self._waiting[0].not_before > now:
                    return None
                item = self._waiting.popleft()
                if self.may_begin(item):
                    return item
        return None

    def may_begin(self, item: Departed) -> bool:
        """Whether nothing stands against the message, as far as is known since the last look."""
        return item.outbound.sender.domain not in self._barred and not self._is_stopped(item)

    def put_back(self, chunk: Sequence[Departed]) -> None:
        """Leave them, provably not begun, to another connection."""
        with self._taking:
            self._waiting.extendleft(reversed(chunk))

    def note(self, handed: Sequence[Handed]) -> None:
        """What came of them; ends everything when the provider wants no more or refuses too many,
        or bars a domain."""
        self.handed.extend(handed)
        self._barred.update(
            h.departed.outbound.sender.domain for h in handed if h.verdict.blame == Blame.SENDER
        )
        if self._refusals.are_too_many(handed) or any(h.verdict.stops_provider for h in handed):
            self.end()

    def cannot_begin(self, why: str) -> None:
        """There is no way to the provider: one message says so, whenever its turn would be, and the
        provider's circuit keeps the others from trying."""
        with self._taking:
            first = [self._waiting.popleft()] if self._waiting else []
        self.note([Handed(item, no_way(why)) for item in first])
        self.end()

    def look(self) -> None:
        """Ask what is switched off now, if it is time to. On the thread that has the database."""
        if time.monotonic() - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        try:
            self._is_stopped = self._ask()
        except Error:
            # Nobody knows what is switched off now, and what is done has to be recorded.
            self.end()
            connection.close()

    def _wait_until(self, moment: float) -> bool:
        now = time.monotonic()
        if max(now, moment) >= self.deadline:
            return False
        return not self._over.wait(moment - now) if moment > now else True

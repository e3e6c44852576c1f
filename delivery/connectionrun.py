"""Handing messages to a provider over connections that are kept: SMTP, and the sandbox.

Everything `handover` says of hand-overs holds here. One connection begins; where that turns out to
be slow, further ones are opened, up to the route's concurrency, each on a thread of its own. (Over
SMTP a message is announced before it is begun: `delivery.dialogue`.)
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack

from django.core.mail.backends.base import BaseEmailBackend

from delivery.calls import call, shown
from delivery.connections import pool
from delivery.dialogue import Conversation, Dialogue
from delivery.journal import Journal, JournalLost
from delivery.models import Provider
from delivery.routes import Route
from delivery.turns import Departed, Handed, Turns
from delivery.verdicts import Verdict, of_connection, verdict_of

logger = logging.getLogger(__name__)

# One connection is enough for what is done that soon, and threads would only get in each other's
# way. So much is tried before it is judged.
_ALONE_SECONDS = 0.05
_TRIAL_SECONDS = 0.02


class ConnectionRun:
    """One provider's share of a batch, worked off by one or several connections."""

    def __init__(self, provider: Provider, route: Route, turns: Turns) -> None:
        self._provider = provider
        self._route = route
        self._turns = turns

    def all_of_it(self, journal: Journal | None) -> None:
        """Work it off: alone first, with company once that turns out to be slow."""
        started = time.monotonic()
        may_have_company = journal is not None and self._route.concurrency > 1

        def is_slow() -> bool:
            taken = time.monotonic() - started
            if not may_have_company or taken < _TRIAL_SECONDS:
                return False
            done = max(1, len(self._turns.handed))
            return taken / done * len(self._turns) > _ALONE_SECONDS

        self._work(journal, until=is_slow, look=self._turns.look)
        count = min(self._route.concurrency, len(self._turns))
        if count < 1 or self._turns.is_over or not may_have_company:
            return
        assert journal is not None  # without one a batch is a single message
        journal.flush()  # this connection has no next beginning to note its outcome with
        with ThreadPoolExecutor(count, thread_name_prefix="hand-over") as threads:
            lanes = [threads.submit(self._lane, journal.lane()) for _ in range(count)]
            while not all(lane.done() for lane in lanes):
                self._turns.look()
                wait(lanes, timeout=0.05)

    def _lane(self, journal: Journal) -> None:
        try:
            self._work(journal, until=lambda: False, look=None)
        except Exception:
            # The other lanes' outcomes are to be recorded all the same.
            logger.exception("hand-over lane ended", extra={"provider": self._provider.key})
            self._turns.end()

    def _work(
        self,
        journal: Journal | None,
        *,
        until: Callable[[], bool],
        look: Callable[[], None] | None,
    ) -> None:
        """`look` is None on a connection that is one of several: another thread looks."""
        with ExitStack() as stack:
            if journal is not None:
                stack.callback(journal.release)
            try:
                door = stack.enter_context(pool.borrow(self._provider.key, self._route))
            except Exception as error:
                logger.exception(
                    "no connection can be made", extra={"provider": self._provider.key}
                )
                self._turns.cannot_begin(f"cannot be used: {type(error).__name__}")
                return
            if isinstance(door, Dialogue):
                self._converse(door, journal, until, look)
            else:
                self._call_by_call(door, journal, until, look)

    def _call_by_call(
        self,
        door: BaseEmailBackend,
        journal: Journal | None,
        until: Callable[[], bool],
        look: Callable[[], None] | None,
    ) -> None:
        """For a backend that is no dialogue: the sandbox."""
        while not self._turns.is_over and (chunk := self._turns.next(self._route.batch_size)):
            if self._turns.is_over or not self._opens(door, chunk, is_one_of_many=look is None):
                return
            try:
                begun = _begin(chunk, journal)
            except JournalLost:
                self._turns.end()
                return
            self._turns.note(call(door, begun, self._route, journal))
            if until():
                return
            if look is not None:
                look()

    def _converse(
        self,
        door: Dialogue,
        journal: Journal | None,
        until: Callable[[], bool],
        look: Callable[[], None] | None,
    ) -> None:
        conversation = Conversation(door, self._turns, journal, self._understood)
        upcoming: Departed | None = None
        try:
            while not self._turns.is_over and (upcoming or not until()):
                chunk = [upcoming] if upcoming else self._turns.next(1)
                if not chunk or self._turns.is_over:
                    return
                if not self._opens(door, chunk, is_one_of_many=look is None):
                    return
                upcoming = conversation.hand_over(chunk[0], look=look, is_last=until)
        finally:
            door.withdraw()

    def _opens(
        self, door: BaseEmailBackend | Dialogue, chunk: Sequence[Departed], *, is_one_of_many: bool
    ) -> bool:
        """Whether the connection is there for these; if not, one of them has its verdict."""
        try:
            door.open()
        except Exception as error:  # noqa: BLE001 - any backend's; nothing was handed over
            if is_one_of_many and self._turns.handed:
                # One connection more than the provider likes; the others go on.
                self._turns.put_back(chunk)
            else:
                self._turns.note([Handed(chunk[0], of_connection(error))])
            return False
        return True

    def _understood(self, item: Departed, answer: Verdict | Exception) -> Handed:
        if isinstance(answer, Exception):
            answer = verdict_of(answer, self._route.traits)
        return Handed(item, shown(answer, self._route))


def _begin(chunk: Sequence[Departed], journal: Journal | None) -> list[Departed]:
    if journal is None:
        return list(chunk)
    rights = journal.begin([item.outbound.message.pk for item in chunk])
    return [item for item, right in zip(chunk, rights, strict=True) if right]

"""Handing committed messages to their providers, each at most once.

Before a message's first byte its right is claimed in the batch's journal; its verdict is noted
there with the next beginning. So a crash leaves at most one call per connection in doubt, and a
worker that was frozen past its lease finds its right revoked. Without a journal a batch is one
message long. (Over SMTP a message is announced before it is begun: `delivery.dialogue`.)

Where a provider takes its time, further connections are opened, up to the route's concurrency. A
verdict that is the provider's fault, or a switch thrown meanwhile, ends the hand-over, one about a
sending domain ends that domain's: what has not been begun is given back.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack

from django.conf import settings
from django.core.mail.backends.base import BaseEmailBackend

from delivery.calls import call, shown
from delivery.connections import pool
from delivery.dialogue import Conversation, Dialogue
from delivery.httprun import HttpRun
from delivery.journal import Journal, JournalLost
from delivery.models import Provider
from delivery.routes import Route, RouteError
from delivery.turns import Departed, Handed, Stops, Turns
from delivery.verdicts import Blame, Outcome, Verdict, of_connection, verdict_of

logger = logging.getLogger(__name__)

# A batch that is slow to hand over gives the rest back rather than outliving its lease or a
# polite shutdown.
MAX_SECONDS = 5.0
# One connection is enough for what is done that soon, and threads would only get in each other's
# way. So much is tried before it is judged.
_ALONE_SECONDS = 0.05
_TRIAL_SECONDS = 0.02
_UNROUTED_SECONDS = 60.0


def hand_over(
    departed: Sequence[Departed],
    routes: Mapping[Provider, Route | RouteError],
    journal: Journal | None,
    stops: Stops,
) -> list[Handed]:
    """Offer each message to its provider. Those that are missing in the answer were not begun."""
    end = time.monotonic() + min(MAX_SECONDS, settings.LEASE_SECONDS / 2)
    groups: dict[Provider, list[Departed]] = defaultdict(list)
    for item in departed:
        groups[item.outbound.provider].append(item)
    handed: list[Handed] = []
    for number, (provider, group) in enumerate(groups.items()):
        # A share of the time for each, so that a slow provider does not take it all.
        now = time.monotonic()
        deadline = now + (end - now) / (len(groups) - number)
        route = routes[provider]
        if isinstance(route, RouteError):
            verdict = Verdict(
                Outcome.RETRY, str(route), retry_after=_UNROUTED_SECONDS, blame=Blame.ROUTE
            )
            handed.append(Handed(group[0], verdict))
            continue
        group.sort(key=lambda item: item.not_before)
        turns = Turns(group, deadline, stops)
        kind = HttpRun if route.is_http else _Run
        kind(provider, route, turns).all_of_it(journal)
        handed.extend(turns.handed)
    return handed


class _Run:
    """One provider's share of a batch, worked off by one or several connections."""

    def __init__(self, provider: Provider, route: Route, turns: Turns) -> None:
        self._provider = provider
        self._route = route
        self._turns = turns

    def all_of_it(self, journal: Journal | None) -> None:
        """Alone first; with company once that turns out to be slow."""
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
            try:
                door = stack.enter_context(pool.borrow(self._provider.key, self._route))
            except Exception as error:
                logger.exception(
                    "no connection can be made", extra={"provider": self._provider.key}
                )
                self._unusable(error)
                return
            if isinstance(door, Dialogue):
                self._converse(door, journal, until, look)
            else:
                self._call_by_call(door, journal, until, look)

    def _unusable(self, error: Exception) -> None:
        detail = f"cannot be used: {type(error).__name__}"
        verdict = Verdict(Outcome.RETRY, detail, retry_after=_UNROUTED_SECONDS, blame=Blame.ROUTE)
        self._turns.note([Handed(item, verdict) for item in self._turns.next(1)])
        self._turns.end()

    def _call_by_call(
        self,
        door: BaseEmailBackend,
        journal: Journal | None,
        until: Callable[[], bool],
        look: Callable[[], None] | None,
    ) -> None:
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

"""Handing committed messages to their providers, each at most once.

Before a message's first byte its right is claimed in the batch's journal; its verdict is noted
there with the next beginning. So a crash leaves at most one call per connection in doubt, and a
worker that was frozen past its lease finds its right revoked. Without a journal a batch is one
message long.

Where a provider takes its time, further connections are opened, up to the route's concurrency. A
verdict that is the provider's fault, or a switch thrown meanwhile, ends the hand-over, one about a
sending domain ends that domain's: what has not been begun is given back.
"""

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack

from django.conf import settings
from django.core.mail.backends.base import BaseEmailBackend
from django.db import Error, connection

from delivery.calls import Departed, Handed, Stops, call
from delivery.connections import pool
from delivery.httprun import HttpRun
from delivery.journal import Journal, JournalLost
from delivery.models import Provider
from delivery.routes import Route, RouteError
from delivery.verdicts import Blame, Outcome, Verdict, of_connection

logger = logging.getLogger(__name__)

# A batch that is slow to hand over gives the rest back rather than outliving its lease or a
# polite shutdown.
MAX_SECONDS = 5.0
# Faster than this one connection is enough, and threads would only get in each other's way.
_ALONE_SECONDS = 0.05
# A kill switch has to bite within a second.
_LOOK_SECONDS = 0.4
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
        kind = HttpRun if route.is_http else _Run
        run = kind(provider, route, group, deadline, stops)
        run.all_of_it(journal)
        handed.extend(run.handed)
    return handed


class _Run:
    """One provider's share of a batch, worked off by one or several connections."""

    def __init__(
        self,
        provider: Provider,
        route: Route,
        group: Sequence[Departed],
        deadline: float,
        stops: Stops,
    ) -> None:
        self.handed: list[Handed] = []
        self._provider = provider
        self._route = route
        self._waiting = deque(group)
        self._deadline = deadline
        self._ask = stops
        self._is_stopped: Callable[[Departed], bool] = lambda _: False
        self._barred: set[str] = set()
        """Sending domains that the provider has just refused."""
        self._looked_at = time.monotonic()
        self._over = threading.Event()
        self._chunks = threading.Lock()

    def all_of_it(self, journal: Journal | None) -> None:
        """Alone first; with company once that turns out to be slow."""
        started = time.monotonic()

        def is_slow() -> bool:
            return time.monotonic() - started > _ALONE_SECONDS

        self._work(journal, until=is_slow if self._may_have_company(journal) else None)
        count = min(self._route.concurrency, len(self._waiting))
        if count < 1 or self._over.is_set():
            return
        assert journal is not None  # without one a batch is a single message
        journal.flush()  # this connection has no next beginning to note its outcome with
        with ThreadPoolExecutor(count, thread_name_prefix="hand-over") as threads:
            lanes = [threads.submit(self._lane, journal.lane()) for _ in range(count)]
            while not all(lane.done() for lane in lanes):
                self._look()
                wait(lanes, timeout=0.05)

    def _may_have_company(self, journal: Journal | None) -> bool:
        return journal is not None and self._route.concurrency > 1

    def _lane(self, journal: Journal) -> None:
        try:
            self._work(journal, until=None, is_watched=True)
        except Exception:
            # The other lanes' outcomes are to be recorded all the same.
            logger.exception("hand-over lane ended", extra={"provider": self._provider.key})
            self._over.set()

    def _work(
        self,
        journal: Journal | None,
        *,
        until: Callable[[], bool] | None,
        is_watched: bool = False,
    ) -> None:
        with ExitStack() as stack:
            try:
                door = stack.enter_context(pool.borrow(self._provider.key, self._route))
            except Exception as error:
                logger.exception(
                    "no connection can be made", extra={"provider": self._provider.key}
                )
                self._unusable(error)
                return
            while (chunk := self._next()) and not self._over.is_set():
                goes_on = self._serve(chunk, door, journal, is_watched=is_watched)
                if goes_on is None:
                    return
                if not goes_on:
                    self._over.set()
                elif until is not None and until():
                    return
                if not is_watched:
                    self._look()

    def _unusable(self, error: Exception) -> None:
        self._over.set()
        with self._chunks:
            if self._waiting:
                detail = f"cannot be used: {type(error).__name__}"
                verdict = Verdict(
                    Outcome.RETRY, detail, retry_after=_UNROUTED_SECONDS, blame=Blame.ROUTE
                )
                self.handed.append(Handed(self._waiting.popleft(), verdict))

    def _next(self) -> list[Departed]:
        """The next messages to begin; none when there are none, or no time for them."""
        with self._chunks:
            size = min(self._route.batch_size, len(self._waiting))
            chunk = [self._waiting.popleft() for _ in range(size)]
        if not chunk or not _wait_until(chunk[-1].not_before, self._deadline, self._over):
            return []
        return [item for item in chunk if self._may_begin(item)] or self._next()

    def _may_begin(self, item: Departed) -> bool:
        return item.outbound.sender.domain not in self._barred and not self._is_stopped(item)

    def _serve(
        self,
        chunk: Sequence[Departed],
        door: BaseEmailBackend,
        journal: Journal | None,
        *,
        is_watched: bool,
    ) -> bool | None:
        """Hand the chunk over; False when nothing more should go this way now, None when this
        connection is one too many."""
        try:
            door.open()
        except Exception as error:  # noqa: BLE001 - any backend's; nothing was handed over
            if is_watched and self.handed:
                # One connection more than it likes; the others go on.
                with self._chunks:
                    self._waiting.extendleft(reversed(chunk))
                return None
            self.handed.append(Handed(chunk[0], of_connection(error)))
            return False
        try:
            begun = _begin(chunk, journal)
        except JournalLost:
            return False
        handed = call(door, begun, self._route, journal)
        self.handed.extend(handed)
        self._barred.update(
            h.departed.outbound.sender.domain for h in handed if h.verdict.blame == Blame.SENDER
        )
        return not any(h.verdict.stops_provider for h in handed)

    def _look(self) -> None:
        if time.monotonic() - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        try:
            self._is_stopped = self._ask()
        except Error:
            # Nobody knows what is switched off now, and what is done has to be recorded.
            self._over.set()
            connection.close()


def _wait_until(moment: float, deadline: float, over: threading.Event) -> bool:
    now = time.monotonic()
    if max(now, moment) >= deadline:
        return False
    return not over.wait(moment - now) if moment > now else True


def _begin(chunk: Sequence[Departed], journal: Journal | None) -> list[Departed]:
    if journal is None:
        return list(chunk)
    rights = journal.begin([item.outbound.message.pk for item in chunk])
    return [item for item, right in zip(chunk, rights, strict=True) if right]

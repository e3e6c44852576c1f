"""Handing messages to a provider that is reached over HTTP: several calls at once from one thread,
and, where the provider takes them, several mails in one call.

Everything `handover` says of hand-overs holds here: a right is claimed in the journal before a
message's call, a whole call's at once, and noted there what came of it with the next claims. So a
crash leaves as many calls in doubt as there may be at once.

The first call goes alone; each that ends well lets another one begin beside it, up to the route's
concurrency. What a call is and what its answer means: `offering`.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import TimeoutError as StillRunning
from concurrent.futures import wait
from uuid import UUID

from delivery import pace
from delivery.backends.client import client
from delivery.journal import Journal, JournalLost
from delivery.models import Provider
from delivery.offering import Mail, Offering
from delivery.routes import Route
from delivery.turns import LOOK_SECONDS, Departed, Handed, Turns

logger = logging.getLogger(__name__)

_NAP_SECONDS = 0.1


class HttpRun:
    """One provider's share of a batch, as calls. What came of it stands in its `Turns`."""

    def __init__(self, provider: Provider, route: Route, turns: Turns) -> None:
        """Raises whatever keeps its calls from being made; none of the `turns` is taken then."""
        client.open()
        self._turns = turns
        self._provider = provider
        self._route = route
        self._offering = Offering(route, turns, self._hear, self._is_its_turn)
        self._waiting = deque(_chunks(turns.all(), route))
        self._made: dict[UUID, Mail] = {}
        """Those of the waiting that were made for a call in which there was no room for them."""
        self._lanes = 0

    def all_of_it(self, journal: Journal | None) -> None:
        """Work it off, looking at the switches meanwhile; what is not begun is left out."""
        work = client.start(self._work(journal))
        try:
            while True:
                try:
                    return work.result(LOOK_SECONDS)
                except StillRunning:
                    self._turns.look()
        finally:
            # Whatever ends this thread's part, what was begun comes to its end.
            self._turns.end()
            wait([work])

    async def _work(self, journal: Journal | None) -> None:
        self._claims = _Claims(journal)
        async with asyncio.TaskGroup() as self._group:
            self._open_lane()

    def _open_lane(self) -> None:
        self._lanes += 1
        self._group.create_task(self._lane())

    async def _lane(self) -> None:
        try:
            while not self._turns.is_over and (chunk := await self._next()):
                await self._serve(chunk)
                if (
                    self._waiting
                    and self._lanes < self._route.concurrency
                    and not self._turns.is_over
                ):
                    self._open_lane()
        except JournalLost:
            self._turns.end()
        except Exception:
            # The other lanes' outcomes are to be recorded all the same.
            logger.exception("hand-over lane ended", extra={"provider": self._provider.key})
            self._turns.end()

    async def _next(self) -> list[Departed]:
        """The next messages to begin; none when there are none, or no time for them."""
        while self._waiting:
            chunk = self._waiting.popleft()
            soonest = max(item.not_before for item in chunk)
            if not await self._wait_until(soonest, self._turns.deadline):
                return []
            if may := [item for item in chunk if self._turns.may_begin(item)]:
                return may
        return []

    async def _wait_until(self, moment: float, end: float) -> bool:
        while (now := time.monotonic()) < moment < end and not self._turns.is_over:
            await asyncio.sleep(min(moment - now, _NAP_SECONDS))
        return max(now, moment) < end and not self._turns.is_over

    async def _serve(self, chunk: Sequence[Departed]) -> None:
        made = [mail for item in chunk if (mail := self._mail_of(item))]
        mails = self._offering.that_fit(made)
        if rest := made[len(mails) :]:
            self._made.update((mail.item.outbound.message.pk, mail) for mail in rest)
            self._waiting.appendleft([mail.item for mail in rest])
        if not mails or not await self._is_its_turn(self._turns.deadline):
            return
        rights = await self._claims.claim([mail.item.outbound.message.pk for mail in mails])
        begun = [mail for mail, right in zip(mails, rights, strict=True) if right]
        if begun:
            await self._offering.offer(begun)

    def _mail_of(self, item: Departed) -> Mail | None:
        return self._made.pop(item.outbound.message.pk, None) or self._offering.made(item)

    async def _is_its_turn(self, end: float) -> bool:
        """Whether a call may be made before `end`. Where the provider counts calls; mails have
        waited for their turn before."""
        if not self._route.traits.counts_calls:
            return True
        bucket = pace.provider_bucket(self._provider.key, self._route.rate_limit)
        while True:
            (seconds,) = await asyncio.to_thread(pace.take, [[bucket]])
            if not await self._wait_until(time.monotonic() + seconds, end):
                return False
            if seconds <= pace.WITHIN_SECONDS:
                return True

    def _hear(self, handed: Sequence[Handed]) -> None:
        self._claims.done(handed)
        self._turns.note(handed)


class _Claims:
    """The journal of a run. What lanes want to begin while it is being written goes there with the
    next writing: a call for many of them, for which no other lane waits."""

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        self._asked: list[tuple[Sequence[UUID], asyncio.Future[list[bool]]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def claim(self, messages: Sequence[UUID]) -> list[bool]:
        """Which of them may be begun; raises `JournalLost` when nobody knows."""
        if self._journal is None:
            return [True] * len(messages)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[bool]] = loop.create_future()
        self._asked.append((messages, future))
        if self._writing is None:
            self._writing = loop.create_task(self._write(self._journal))
        return await future

    def done(self, handed: Sequence[Handed]) -> None:
        """Noted with the next claim."""
        if self._journal is not None:
            self._journal.done((h.departed.outbound.message.pk, h.verdict) for h in handed)

    async def _write(self, journal: Journal) -> None:
        while self._asked:
            asked, self._asked = self._asked, []
            try:
                ids = [pk for messages, _ in asked for pk in messages]
                rights = iter(await journal.begin_soon(client.valkey, ids))
            except Exception as error:  # noqa: BLE001 - whoever has asked is told
                for _, future in asked:
                    future.set_exception(error)
            else:
                for messages, future in asked:
                    future.set_result([next(rights) for _ in messages])
        self._writing = None


def _chunks(group: Sequence[Departed], route: Route) -> Iterator[list[Departed]]:
    """What goes into one call each, soonest first."""
    alone = [[item] for item in group if route.goes_alone(item.outbound.message)]
    together: dict[object, list[Departed]] = {}
    for item in group:
        if not route.goes_alone(item.outbound.message):
            together.setdefault(_in_common(item, route), []).append(item)
    filled = [
        items[start : start + route.batch_size]
        for items in together.values()
        for start in range(0, len(items), route.batch_size)
    ]
    yield from sorted([*alone, *filled], key=lambda chunk: chunk[-1].not_before)


def _in_common(item: Departed, route: Route) -> object:
    """What the mails of one call have in common."""
    batch, outbound = route.traits.batch, item.outbound
    if batch is None or not batch.one_sender:
        return None
    template = outbound.message.template_version_id if batch.one_template else None
    return outbound.sender.pk, outbound.message.origin_campaign, template

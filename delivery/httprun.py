"""Handing messages to a provider that is reached over HTTP: several calls at once from one thread,
and, where the provider takes them, several mails in one call.

Everything `handover` says of hand-overs holds here: a right is claimed in the journal before a
message's call, a whole call's at once, and noted there what came of it with the next claims. So a
crash leaves as many calls in doubt as there may be at once.

The first call goes alone; each that ends well lets another one begin beside it, up to the route's
concurrency. What a call without an answer has carried is in doubt together. What was refused as a
whole, although it may be one mail's fault, is offered again by halves: a refusal is a proof that
none was taken.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import TimeoutError as StillRunning
from concurrent.futures import wait
from typing import NamedTuple
from uuid import UUID

import requests

from delivery import pace
from delivery.backends.batches import BATCHINGS, Batching, Part
from delivery.backends.client import Request, client
from delivery.backends.http import GuardedBackend
from delivery.calls import accepted, shown
from delivery.journal import Journal, JournalLost
from delivery.models import Provider
from delivery.providers import Traits
from delivery.routes import Route
from delivery.turns import LOOK_SECONDS, Departed, Handed, Turns
from delivery.verdicts import Blame, HandoverError, Outcome, Verdict, of_answer, verdict_of

logger = logging.getLogger(__name__)

_NAP_SECONDS = 0.1
_REPEATS = 2
_REPEAT_PAUSE = 0.5
# What is still searched after that is given back, or it would outlive its lease and be in doubt.
_SEARCH_SECONDS = 30.0


class _Mail(NamedTuple):
    item: Departed
    part: Part
    traits: Traits


class HttpRun:
    """One provider's share of a batch, as calls. What came of it stands in its `Turns`."""

    def __init__(self, provider: Provider, route: Route, turns: Turns) -> None:
        self._turns = turns
        self._provider = provider
        self._route = route
        self._door = _door(route)
        self._batching = BATCHINGS.get(route.backend, Batching())
        self._waiting = deque(_chunks(turns.all(), route))
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
            if not await self._wait_until(max(item.not_before for item in chunk)):
                return []
            if may := [item for item in chunk if self._turns.may_begin(item)]:
                return may
        return []

    async def _wait_until(self, moment: float) -> bool:
        while (now := time.monotonic()) < moment < self._turns.deadline and not self._turns.is_over:
            await asyncio.sleep(min(moment - now, _NAP_SECONDS))
        return max(now, moment) < self._turns.deadline and not self._turns.is_over

    async def _serve(self, chunk: Sequence[Departed]) -> None:
        mails = [mail for item in chunk if (mail := self._made(item))]
        if self._route.traits.batch is not None and len(mails) > 1:
            mails = self._that_fit(mails, self._route.traits.batch.size)
        if not mails or not await self._is_its_turn():
            return
        rights = await self._claims.claim([mail.item.outbound.message.pk for mail in mails])
        begun = [mail for mail, right in zip(mails, rights, strict=True) if right]
        try:
            if begun:
                await self._offer(begun)
        except Exception:
            self._doubt(begun)
            raise

    def _made(self, item: Departed) -> _Mail | None:
        item.outbound.email.attempt = item.attempt
        try:
            payload = self._door.prepare(item.outbound.email)
            alone = self._route.goes_alone(item.outbound.message)
            part = Part(payload, b"") if alone else self._batching.part(payload)
            return _Mail(item, part, self._route.traits)
        except Exception as error:  # noqa: BLE001 - every fault has a verdict
            self._note([(item, verdict_of(error, self._route.traits, posted=False))])
            return None

    def _that_fit(self, mails: Sequence[_Mail], size: int) -> list[_Mail]:
        """As many as a call may carry; the others are put back."""
        room, count = size, 0
        # What the parts have in common takes less than one of them.
        room -= max(len(mail.part.body) for mail in mails)
        while count < len(mails) and room >= len(mails[count].part.body) + 1:
            room -= len(mails[count].part.body) + 1
            count += 1
        count = max(count, 1)
        if rest := [mail.item for mail in mails[count:]]:
            self._waiting.appendleft(rest)
        return list(mails[:count])

    async def _is_its_turn(self) -> bool:
        """Where the provider counts calls; mails have waited for theirs before."""
        if not self._route.traits.counts_calls:
            return True
        bucket = pace.provider_bucket(self._provider.key, self._route.rate_limit)
        while True:
            (seconds,) = pace.take([[bucket]])
            if not await self._wait_until(time.monotonic() + seconds):
                return False
            if seconds <= pace.WITHIN_SECONDS:
                return True

    async def _offer(self, mails: Sequence[_Mail]) -> None:
        """Call, and again by halves as long as a refusal of many may be the fault of one."""
        waiting = deque([list(mails)])
        # As many calls as it takes to find a few mails among them. If it is more than a few, the
        # rest is given back, and the provider's circuit has seen so many refusals.
        calls = 4 * len(mails).bit_length() + 4
        end = time.monotonic() + _SEARCH_SECONDS
        is_any_known = False
        while waiting and calls and not self._turns.is_over:
            if is_any_known and time.monotonic() >= end:
                return
            some = waiting.popleft()
            calls -= 1
            if len(some) > 1 or not self._route.goes_alone(some[0].item.outbound.message):
                whole = await self._offer_together(some)
            else:
                whole = await self._offer_alone(some[0])
            if whole is not None and len(some) > 1 and _may_be_anothers(whole, some):
                middle = len(some) // 2
                waiting.extendleft([some[middle:], some[:middle]])
                continue
            is_any_known = True
            if whole is not None:
                self._note([(mail.item, whole) for mail in some], is_one_answer=True)

    def _doubt(self, begun: Sequence[_Mail]) -> None:
        """What is not known of these nobody will know; unless that is said they pass for mails
        that were not begun."""
        known = {handed.departed.outbound.message.pk for handed in self._turns.handed}
        verdict = Verdict(Outcome.UNKNOWN, "the hand-over ended with an error")
        rest = [mail.item for mail in begun if mail.item.outbound.message.pk not in known]
        self._note([(item, verdict) for item in rest], is_one_answer=True)

    async def _offer_alone(self, mail: _Mail) -> Verdict:
        posted = False
        try:
            request = requested(self._door, mail.part.payload)
            posted = True
            return answered(self._door, self._batching, mail, await client.post(request))
        except Exception as error:  # noqa: BLE001 - every fault has a verdict
            return verdict_of(error, self._route.traits, posted=posted)

    async def _offer_together(self, mails: Sequence[_Mail]) -> Verdict | None:
        """The verdict about the call as a whole; None when each mail has one of its own."""
        # Company that is left alone makes the call it would have made alone, key and all.
        is_alone = len(mails) == 1
        posted = False
        try:
            request = self._together(mails)
            posted = True
            answer = await self._posted(request)
            if is_alone:
                return answered(self._door, self._batching, mails[0], answer)
            verdicts = told(self._batching, answer, len(mails), self._route)
        except Exception as error:  # noqa: BLE001 - every fault has a verdict
            return verdict_of(error, self._route.traits, posted=posted)
        if verdicts is None:
            status, headers = answer.status_code, answer.headers
            return of_answer(status, headers, answer.text, self._route.traits)
        items = [mail.item for mail in mails]
        self._note(list(zip(items, verdicts, strict=True)))
        return None

    def _together(self, mails: Sequence[_Mail]) -> Request:
        parts = [mail.part for mail in mails]
        first = requested(self._door, parts[0].payload)
        if len(parts) == 1:
            return first
        return self._batching.request(parts, first, self._door.api_url)

    async def _posted(self, request: Request) -> requests.Response:
        """The answer. Where calls have keys, one without an answer is repeated at once: later its
        mails would not be together any more, and the key would be another one."""
        for number in range(_REPEATS + 1):
            try:
                answer = await client.post(request)
            except HandoverError as error:
                if error.verdict.outcome != Outcome.UNKNOWN or not self._may_repeat(number):
                    raise
            else:
                traits, code = self._route.traits, answer.status_code
                verdict = of_answer(code, answer.headers, answer.text, traits)
                if verdict.outcome != Outcome.UNKNOWN or not self._may_repeat(number):
                    return answer
            await asyncio.sleep(_REPEAT_PAUSE)
        raise AssertionError("the last try returns or raises")

    def _may_repeat(self, number: int) -> bool:
        is_keyed = self._route.traits.idempotent_seconds > 0
        return is_keyed and number < _REPEATS and not self._turns.is_over

    def _note(
        self, fates: Sequence[tuple[Departed, Verdict]], *, is_one_answer: bool = False
    ) -> None:
        handed = [
            Handed(item, shown(verdict, self._route), is_echo=is_one_answer and place > 0)
            for place, (item, verdict) in enumerate(fates)
        ]
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


def requested(door: GuardedBackend, payload: object) -> Request:
    return door.request(payload)


def answered(
    door: GuardedBackend, batching: Batching, mail: _Mail, answer: requests.Response
) -> Verdict:
    """What an answer says of the one mail of its call; raises what Anymail raises."""
    verdict = batching.of_one(answer, mail.traits)
    if verdict is None:
        door.conclude(mail.item.outbound.email, mail.part.payload, answer)
        verdict = accepted(mail.item.outbound.email)
    return verdict


def told(
    batching: Batching, answer: requests.Response, count: int, route: Route
) -> list[Verdict] | None:
    """What an answer says of each mail of its call; None when it is about all of them."""
    return batching.verdicts(answer, count, route.traits)


def _door(route: Route) -> GuardedBackend:
    door = route.connection()
    assert isinstance(door, GuardedBackend)
    return door


def _may_be_anothers(whole: Verdict, mails: Sequence[_Mail]) -> bool:
    """Whether a refusal of many may be the fault of one of them."""
    if whole.blame == Blame.SENDER:
        return len({mail.item.outbound.sender.domain for mail in mails}) > 1
    return whole.outcome == Outcome.PERMANENT


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
    if route.traits.batch is None or not route.traits.batch.one_sender:
        return None
    outbound = item.outbound
    return outbound.sender.pk, outbound.message.origin_campaign

"""Offering mails to a provider over HTTP: a call for one or for many of them, and what its answer
says of each.

What a call without an answer has carried is in doubt together. What was refused as a whole,
although it may be one mail's fault, is offered again by halves: a refusal is a proof that none was
taken.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import requests

from delivery.backends.batches import BATCHINGS, Batching, Part
from delivery.backends.client import Request, client
from delivery.backends.http import GuardedBackend
from delivery.calls import accepted, shown
from delivery.providers import Traits
from delivery.routes import Route
from delivery.turns import Departed, Handed, Turns
from delivery.verdicts import Blame, HandoverError, Outcome, Verdict, of_answer, verdict_of

_REPEATS = 2
_REPEAT_PAUSE = 0.5
# What is still searched after that is given back, or it would outlive its lease and be in doubt.
_SEARCH_SECONDS = 30.0


class Mail(NamedTuple):
    """A message as it will be offered."""

    item: Departed
    part: Part
    traits: Traits


class Offering:
    """Makes one provider's calls and tells `hear` what came of the mails in them."""

    def __init__(
        self, route: Route, turns: Turns, hear: Callable[[Sequence[Handed]], None]
    ) -> None:
        self._route = route
        self._turns = turns
        self._hear = hear
        self._door = _door(route)
        self._batching = BATCHINGS.get(route.backend, Batching())

    def made(self, item: Departed) -> Mail | None:
        """The mail; None when the provider cannot be offered it, which is heard."""
        item.outbound.email.attempt = item.attempt
        try:
            payload = self._door.prepare(item.outbound.email)
            alone = self._route.goes_alone(item.outbound.message)
            part = Part(payload, b"") if alone else self._batching.part(payload)
            return Mail(item, part, self._route.traits)
        except Exception as error:  # noqa: BLE001 - every fault has a verdict
            self._note([(item, verdict_of(error, self._route.traits, posted=False))])
            return None

    def that_fit(self, mails: Sequence[Mail]) -> list[Mail]:
        """The first of them, as many as one call may carry."""
        batch = self._route.traits.batch
        if batch is None or len(mails) < 2:
            return list(mails)
        count = 0
        # What the parts have in common takes less than one of them.
        room = batch.size - max(len(mail.part.body) for mail in mails)
        while count < len(mails) and room >= len(mails[count].part.body) + 1:
            room -= len(mails[count].part.body) + 1
            count += 1
        return list(mails[: max(count, 1)])

    async def offer(self, mails: Sequence[Mail]) -> None:
        """Offer mails that are begun. Those of which nothing is heard were provably not taken."""
        try:
            await self._search(mails)
        except Exception:
            self._doubt(mails)
            raise

    async def _search(self, mails: Sequence[Mail]) -> None:
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
            # A switch may have been thrown since the call before.
            some = [mail for mail in waiting.popleft() if self._turns.may_begin(mail.item)]
            if not some:
                continue
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

    def _doubt(self, begun: Sequence[Mail]) -> None:
        """What is not known of these nobody will know; unless that is said they pass for mails
        that were not begun."""
        known = {handed.departed.outbound.message.pk for handed in self._turns.handed}
        verdict = Verdict(Outcome.UNKNOWN, "the hand-over ended with an error")
        rest = [mail.item for mail in begun if mail.item.outbound.message.pk not in known]
        self._note([(item, verdict) for item in rest], is_one_answer=True)

    async def _offer_alone(self, mail: Mail) -> Verdict:
        posted = False
        try:
            request = requested(self._door, mail.part.payload)
            posted = True
            return answered(self._door, self._batching, mail, await client.post(request))
        except Exception as error:  # noqa: BLE001 - every fault has a verdict
            return verdict_of(error, self._route.traits, posted=posted)

    async def _offer_together(self, mails: Sequence[Mail]) -> Verdict | None:
        """The verdict about the call as a whole; None when each mail has one of its own."""
        # Company that is left alone makes the call it would have made alone, key and all.
        is_alone = len(mails) == 1
        posted = False
        try:
            request = self._together(mails)
            posted = True
            answer = await self._posted(request, mails)
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

    def _together(self, mails: Sequence[Mail]) -> Request:
        parts = [mail.part for mail in mails]
        first = requested(self._door, parts[0].payload)
        if len(parts) == 1:
            return first
        return self._batching.request(parts, first, self._door.api_url)

    async def _posted(self, request: Request, mails: Sequence[Mail]) -> requests.Response:
        """The answer. Where calls have keys, one without an answer is repeated at once: later its
        mails would not be together any more, and the key would be another one."""
        for number in range(_REPEATS + 1):
            try:
                answer = await client.post(request)
            except HandoverError as error:
                if error.verdict.outcome != Outcome.UNKNOWN or not self._may_repeat(number, mails):
                    raise
            else:
                traits, code = self._route.traits, answer.status_code
                verdict = of_answer(code, answer.headers, answer.text, traits)
                if verdict.outcome != Outcome.UNKNOWN or not self._may_repeat(number, mails):
                    return answer
            await asyncio.sleep(_REPEAT_PAUSE)
        raise AssertionError("the last try returns or raises")

    def _may_repeat(self, number: int, mails: Sequence[Mail]) -> bool:
        if not self._route.traits.idempotent_seconds or number >= _REPEATS or self._turns.is_over:
            return False
        return all(self._turns.may_begin(mail.item) for mail in mails)

    def _note(
        self, fates: Sequence[tuple[Departed, Verdict]], *, is_one_answer: bool = False
    ) -> None:
        self._hear(
            [
                Handed(item, shown(verdict, self._route), is_echo=is_one_answer and place > 0)
                for place, (item, verdict) in enumerate(fates)
            ]
        )


def requested(door: GuardedBackend, payload: object) -> Request:
    return door.request(payload)


def answered(
    door: GuardedBackend, batching: Batching, mail: Mail, answer: requests.Response
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


def _may_be_anothers(whole: Verdict, mails: Sequence[Mail]) -> bool:
    """Whether a refusal of many may be the fault of one of them."""
    if whole.blame == Blame.SENDER:
        return len({mail.item.outbound.sender.domain for mail in mails}) > 1
    return whole.outcome == Outcome.PERMANENT

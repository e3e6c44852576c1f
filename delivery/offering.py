"""Offering mails to a provider over HTTP: a call for one or for many of them, and what its answer
says of each.

What a call without an answer has carried is in doubt together. What was refused as a whole,
although it may be one mail's fault, is offered again by halves: a refusal is a proof that none was
taken.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import requests

from delivery.backends.batches import BATCHINGS
from delivery.backends.batching import NOT_MENTIONED, Batching, Part
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
        self,
        route: Route,
        turns: Turns,
        hear: Callable[[Sequence[Handed]], None],
        turn: Callable[[float], Awaitable[bool]],
    ) -> None:
        """`turn` waits until the provider's pace allows one more call; False if that would be after
        the moment it is given (`time.monotonic`)."""
        self._route = route
        self._turns = turns
        self._hear = hear
        self._turn = turn
        self._door = _door(route)
        self._batching = BATCHINGS.get(route.backend, Batching())

    def made(self, item: Departed) -> Mail | None:
        """The mail; None when the provider cannot be offered it, which is heard."""
        item.outbound.email.attempt = item.attempt
        try:
            payload = self._door.prepare(item.outbound.email)
            alone = self._route.goes_alone(item.outbound.message)
            address = item.outbound.email.to[0]
            part = Part(payload, address) if alone else self._batching.part(payload, address)
            return Mail(item, part, self._route.traits)
        except Exception as error:  # noqa: BLE001 - every fault has a verdict
            self._note_each([item], [verdict_of(error, self._route.traits, posted=False)])
            return None

    def that_fit(self, mails: Sequence[Mail]) -> list[Mail]:
        """The first of them, as many as one call may carry."""
        batch = self._route.traits.batch
        if batch is None or len(mails) < 2:
            return list(mails)
        fitting = self._batching.that_fit([mail.part for mail in mails], batch.size)
        return list(mails[:fitting])

    async def offer(self, mails: Sequence[Mail]) -> None:
        """Offer mails that are begun, and whose turn it is. Those of which nothing is heard were
        provably not taken."""
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
        most = 4 * len(mails).bit_length() + 4
        calls = 0
        end = _ends_in(_SEARCH_SECONDS)
        is_any_known = False
        while waiting and calls < most and not self._turns.is_over:
            if is_any_known and time.monotonic() >= end:
                return
            # Until one is known it goes on as long as the lease lasts, or the next batch would make
            # the same calls again.
            if calls and not await self._turn(end if is_any_known else math.inf):
                return
            # A switch may have been thrown since the call before.
            some = [mail for mail in waiting.popleft() if self._turns.may_begin(mail.item)]
            if not some:
                continue
            calls += 1
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
                self._note_all([mail.item for mail in some], whole)

    def _doubt(self, begun: Sequence[Mail]) -> None:
        """What is not known of these nobody will know; unless that is said they pass for mails
        that were not begun."""
        known = {handed.departed.outbound.message.pk for handed in self._turns.handed}
        verdict = Verdict(Outcome.UNKNOWN, "the hand-over ended with an error")
        rest = [mail.item for mail in begun if mail.item.outbound.message.pk not in known]
        self._note_all(rest, verdict)

    async def _offer_alone(self, mail: Mail) -> Verdict:
        posted = False
        try:
            request = self._door.request(mail.part.payload)
            posted = True
            return _answered(self._door, self._batching, mail, await client.post(request))
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
                return _answered(self._door, self._batching, mails[0], answer)
            parts = [mail.part for mail in mails]
            verdicts = self._batching.of_answer_to_many(answer, parts, self._route.traits)
        except Exception as error:  # noqa: BLE001 - every fault has a verdict
            return verdict_of(error, self._route.traits, posted=posted)
        if verdicts is None:
            return self._of_whole(answer, mails)
        if _mention_none(verdicts):
            return NOT_MENTIONED
        self._note_each([mail.item for mail in mails], verdicts)
        return None

    def _together(self, mails: Sequence[Mail]) -> Request:
        parts = [mail.part for mail in mails]
        first = self._door.request(parts[0].payload)
        if len(parts) == 1:
            return first
        return self._door.sealed(self._batching.request(parts, first, self._door.api_url))

    async def _posted(self, request: Request, mails: Sequence[Mail]) -> requests.Response:
        """The answer. Where calls have keys, one without an answer is repeated at once: later its
        mails would not be together any more, and the key would be another one."""
        if not self._route.traits.idempotent_seconds:
            return await client.post(request)
        try:
            answer = await client.post(request)
        except HandoverError as error:
            doubt = error.verdict
            if doubt.outcome != Outcome.UNKNOWN or not self._may_repeat(mails):
                raise
        else:
            doubt = self._of_whole(answer, mails)
            if doubt.outcome != Outcome.UNKNOWN or not self._may_repeat(mails):
                return answer
        return await self._repeated(request, mails, doubt)

    async def _repeated(
        self, request: Request, mails: Sequence[Mail], doubt: Verdict
    ) -> requests.Response:
        """The answer to a call made before, of which `doubt` is what is known. That it is turned
        away now says nothing about the first time: only an acceptance ends the doubt."""
        for _ in range(_REPEATS):
            await asyncio.sleep(_REPEAT_PAUSE)
            if not self._may_repeat(mails) or not await self._turn(_ends_in(_SEARCH_SECONDS)):
                break
            try:
                answer = await client.post(request)
            except HandoverError as error:
                verdict = error.verdict
            else:
                verdict = self._of_whole(answer, mails)
                if verdict.outcome == Outcome.ACCEPTED:
                    return answer
            if verdict.stops_provider:
                raise HandoverError(_asked_again(doubt, verdict))
        raise HandoverError(doubt)

    def _of_whole(self, answer: requests.Response, mails: Sequence[Mail]) -> Verdict:
        """What it says of the call; `NOT_MENTIONED` if it should list each mail and lists none."""
        traits = self._route.traits
        verdict = of_answer(answer.status_code, answer.headers, answer.text, traits)
        if verdict.outcome == Outcome.ACCEPTED and len(mails) > 1:
            parts = [mail.part for mail in mails]
            each = self._batching.of_answer_to_many(answer, parts, traits) or [verdict]
            return NOT_MENTIONED if _mention_none(each) else verdict
        return verdict

    def _may_repeat(self, mails: Sequence[Mail]) -> bool:
        return not self._turns.is_over and all(self._turns.may_begin(mail.item) for mail in mails)

    def _note_each(self, items: Sequence[Departed], verdicts: Sequence[Verdict]) -> None:
        fates = zip(items, verdicts, strict=True)
        self._hear([Handed(item, shown(verdict, self._route)) for item, verdict in fates])

    def _note_all(self, items: Sequence[Departed], verdict: Verdict) -> None:
        # Once, or a long answer to hundreds of mails would hold up the loop for seconds.
        told = shown(verdict, self._route)
        self._hear([Handed(item, told, is_echo=place > 0) for place, item in enumerate(items)])


def _answered(
    door: GuardedBackend, batching: Batching, mail: Mail, answer: requests.Response
) -> Verdict:
    """What an answer says of the one mail of its call; raises what Anymail raises."""
    verdict = batching.of_answer_to_one(answer, mail.traits)
    if verdict is None:
        door.conclude(mail.item.outbound.email, mail.part.payload, answer)
        verdict = accepted(mail.item.outbound.email)
    return verdict


def _door(route: Route) -> GuardedBackend:
    door = route.connection()
    assert isinstance(door, GuardedBackend)
    return door


def _asked_again(doubt: Verdict, verdict: Verdict) -> Verdict:
    """The doubt, with what its provider has answered since: that holds for all of its mail."""
    detail = f"{verdict.detail}; before that: {doubt.detail}"
    return replace(doubt, detail=detail, blame=verdict.blame, retry_after=verdict.retry_after)


def _mention_none(verdicts: Sequence[Verdict]) -> bool:
    return all(verdict is NOT_MENTIONED for verdict in verdicts)


def _ends_in(seconds: float) -> float:
    return time.monotonic() + seconds


def _may_be_anothers(whole: Verdict, mails: Sequence[Mail]) -> bool:
    """Whether a refusal of many may be the fault of one of them."""
    if whole.blame == Blame.SENDER:
        return len({mail.item.outbound.sender.domain for mail in mails}) > 1
    return whole.outcome == Outcome.PERMANENT or whole.blame == Blame.CALL

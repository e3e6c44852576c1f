"""Delivery, batch by batch: claim → gate → render → gate again and commit the hand-over → hand
over → record. The number of queries does not depend on the size of the batch."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from uuid import UUID

from django.conf import settings
from django.db import Error, transaction

from common.addresses import address_hash
from common.bell import ring, ring_later
from common.ids import lease_owner, uuid7
from common.outages import insist, is_locked_out, is_outage
from contacts.models import Topic
from content.services import published_versions
from delivery import circuits, pace, senderpauses, transitions
from delivery.departures import (
    Leaving,
    Ready,
    buckets_of,
    departure_of,
    made,
    refused_by_gate,
    unless_probed,
    within_limits,
)
from delivery.gate import Facts, load_facts, refreshed
from delivery.handover import hand_over
from delivery.journal import Journal, close_journal, open_journal
from delivery.link_store import store_links
from delivery.models import Message
from delivery.quotas import give_back
from delivery.recording import STAND_IN_PAUSE, never_begun, record
from delivery.routes import Route, RouteError, Routes
from delivery.routing import forget_routes
from delivery.states import MessageState, Stream
from delivery.switches import active_switches
from delivery.transitions import Refused
from delivery.turns import Departed, Handed
from delivery.verdicts import Blame
from suppression.services import lock_addresses

logger = logging.getLogger(__name__)

# Until it is known whether the provider is only away for a moment.
_ROUTE_PAUSE = 5.0
# Until an address is asked for again that somebody holds: as long as it was waited for.
_LOCKED_PAUSE = 10.0

BATCH = {Stream.TRANSACTIONAL: 25, Stream.MARKETING: 50}
"""Messages taken at once. Whoever waits for a receipt waits for the rest of its batch too, so
other workers are left something to take; a broadcast is in no hurry."""
MOST = {Stream.TRANSACTIONAL: 200, Stream.MARKETING: 500}
"""As many while that is done soon: where many wait, all wait less for it, and a call to a provider
can carry no more mails than were taken together."""
_SOON_SECONDS = 0.5
_limits = dict(BATCH)


def drain(stream: str, *, budget: float) -> bool:
    """Deliver what is due on a stream for up to `budget` seconds; True if there may be more.

    What comes in after a batch that was not full has rung again. While there is more, other
    workers are rung for.
    """
    deadline = time.monotonic() + budget
    lane = Stream(stream)
    more = more_crashed = True
    while (more or more_crashed) and time.monotonic() < deadline:
        if more_crashed:
            # One at a time: a message that kills its worker must not take neighbours along.
            more_crashed = deliver_batch(stream, limit=1, crashed=True)
        began = time.monotonic()
        more = deliver_batch(stream, limit=_limits[lane])
        if more:
            ring(stream)
        if time.monotonic() - began > _SOON_SECONDS:
            _limits[lane] = max(_limits[lane] // 2, BATCH[lane])
        elif more:
            _limits[lane] = min(_limits[lane] * 2, MOST[lane])
    return more or more_crashed


def deliver_batch(stream: str, *, limit: int, crashed: bool = False) -> bool:
    """Take up to `limit` due messages as far as they get; True if there may be more."""
    owner = lease_owner()
    messages = transitions.claim(
        stream, owner=owner, lease_seconds=settings.LEASE_SECONDS, limit=limit, crashed=crashed
    )
    if not messages:
        return False
    batch = _Batch(messages, stream, owner)
    batch.deliver()
    return len(messages) == limit or batch.is_cut_short


class _Batch:
    """Claimed messages on their way."""

    is_cut_short = False
    """Some of them were given back and are due again at once."""

    def __init__(self, messages: Sequence[Message], stream: str, owner: str) -> None:
        self._messages = messages
        self._stream = stream
        self._owner = owner
        self._handover_id = uuid7()
        self._routes = Routes()

    def deliver(self) -> None:
        """Hand over what may leave, and settle everything."""
        try:
            journal, departed = self._depart()
        except Error as error:
            # Nothing has been begun, and how far the transaction got does not matter.
            insist(partial(self._give_back_after, error))
            raise
        if departed:
            self._hand_over(departed, journal)
        if journal is not None:
            close_journal(journal)

    def _give_back_after(self, error: Error) -> None:
        ids = [message.pk for message in self._messages]
        if is_outage(error):
            states = (MessageState.CLAIMED, MessageState.DISPATCHING)
            transitions.release(ids, *states, owner=self._owner)
        elif is_locked_out(error) and len(ids) == 1:
            # Whoever holds its person's address decides about it, and may take their time. Of many
            # one waits for that, and which shows when they come alone.
            transitions.put_off({ids[0]: _LOCKED_PAUSE}, owner=self._owner)
        else:
            transitions.give_back_failed(ids, owner=self._owner)

    def _depart(self) -> tuple[Journal | None, list[Departed]]:
        """Everything up to the promise, after which only the provider can say no."""
        self._attach_related()
        facts = load_facts(self._messages)
        passed, refused = self._asked(facts)
        journal = open_journal(self._handover_id) if passed else None
        if journal is None and len(passed) > 1:
            # A crash would leave the whole batch in doubt.
            spare = [message.pk for message in passed[1:]]
            transitions.release(spare, MessageState.CLAIMED, owner=self._owner)
            del passed[1:]
            self.is_cut_short = True
        ready = self._rendered(passed, refused, facts)
        return journal, self._commit(ready, refused, facts)

    def _attach_related(self) -> None:
        versions = published_versions({m.template_version_id for m in self._messages})
        topics = Topic.objects.in_bulk({m.topic_id for m in self._messages if m.topic_id})
        for message in self._messages:
            message.template_version = versions[message.template_version_id]
            message.topic = topics[message.topic_id] if message.topic_id else None

    def _asked(self, facts: Facts) -> tuple[list[Message], list[Refused]]:
        """Those that pass the gate, and what becomes of the others."""
        refused: list[Refused] = []
        passed: list[Message] = []
        for message in self._messages:
            refusal = refused_by_gate(message, facts)
            if refusal is None:
                passed.append(message)
            else:
                refused.append(refusal)
        return passed, refused

    def _rendered(
        self, passed: Sequence[Message], refused: list[Refused], facts: Facts
    ) -> list[Ready]:
        """Those whose turn it is, made; outside any transaction."""
        ready: list[Ready] = []
        for message, not_before in self._in_turn(passed, facts):
            prepared = made(message, facts, self._route(message, facts), not_before)
            if isinstance(prepared, Refused):
                refused.append(prepared)
            else:
                ready.append(prepared)
        return ready

    def _in_turn(self, messages: Sequence[Message], facts: Facts) -> list[tuple[Message, float]]:
        """The messages whose providers take them soon, each with the moment from which; the
        others are put off until it is their turn."""
        if not messages:
            return []
        waits = pace.take(
            [buckets_of(message, facts, self._route(message, facts)) for message in messages]
        )
        now = time.monotonic()  # after the answer: what the call took is not saved up
        late = {m.pk: w for m, w in zip(messages, waits, strict=True) if w > pace.WITHIN_SECONDS}
        self._put_off(late)
        return [
            (message, now + wait)
            for message, wait in zip(messages, waits, strict=True)
            if message.pk not in late
        ]

    def _put_off(self, delays: Mapping[UUID, float]) -> set[UUID]:
        if not delays:
            return set()
        moved = transitions.put_off(delays, owner=self._owner)
        ring_later(self._stream, min(delays.values()))
        return moved

    def _route(self, message: Message, facts: Facts) -> Route | RouteError:
        return self._routes.of(facts.ways[message.pk].provider)

    def _commit(
        self, ready: Sequence[Ready], refused: list[Refused], facts: Facts
    ) -> list[Departed]:
        """The gate's binding answer and the promise to hand over, in one transaction."""
        if not ready:
            transitions.refuse(refused, owner=self._owner)
            return []
        store_links({k: url for i in ready for k, url in (i.outbound.links or {}).items()})
        with transaction.atomic():
            leaving = self._leaving(ready, refused, facts)
            departures = [
                departure_of(item, self._routes.of(item.outbound.provider)) for item, _ in leaving
            ]
            attempts = transitions.dispatch(
                departures,
                owner=self._owner,
                handover_id=self._handover_id,
                lease_seconds=settings.LEASE_SECONDS,
            )
            lost = [taken for item, taken in leaving if item.outbound.message.pk not in attempts]
            give_back(one for taken in lost for one in taken)
        for (item, _), departure in zip(leaving, departures, strict=True):
            # As the row has it now: what a verdict means depends on who gave it.
            item.outbound.message.route = departure.route
            item.outbound.message.provider_id = departure.provider_id
            item.outbound.message.email_normalized = departure.email_normalized
        if lost:
            logger.warning("leases lost before dispatch", extra={"messages": len(lost)})
        return [
            Departed(
                item.outbound,
                attempts[item.outbound.message.pk],
                item.not_before,
                reserved,
                facts.ways[item.outbound.message.pk].is_probe,
            )
            for item, reserved in leaving
            if item.outbound.message.pk in attempts
        ]

    def _leaving(
        self, ready: Sequence[Ready], refused: list[Refused], facts: Facts
    ) -> list[Leaving]:
        """Those that pass the gate under the lock, and what they count against; the others are
        settled here."""
        locks = (address_hash(item.recipient.email_normalized or "") for item in ready)
        lock_addresses(locks, shared=True)
        facts = refreshed(facts, [item.outbound.message for item in ready])
        passed, moved = [], []
        for item in ready:
            message = item.outbound.message
            refusal = refused_by_gate(message, facts)
            recipient = facts.recipients[message.contact_id]
            if refusal is not None:
                refused.append(refusal)
            elif recipient.email_normalized != item.recipient.email_normalized:
                # The lock and the rendered recipient are those of the old address.
                moved.append(message.pk)
            elif item.outbound.is_tracked and not recipient.may_track:
                moved.append(message.pk)  # They have just changed their mind.
            else:
                passed.append(item)
        leaving = unless_probed(within_limits(passed, refused, facts), refused, facts)
        transitions.refuse(refused, owner=self._owner)
        if moved:
            transitions.release(moved, MessageState.CLAIMED, owner=self._owner)
        return leaving

    def _hand_over(self, departed: Sequence[Departed], journal: Journal | None) -> None:
        handed: list[Handed] = []
        try:
            hand_over(departed, self._routes, journal, _what_stops, handed.extend)
        except Exception:
            record(handed, journal)
            raise
        record(handed, journal)
        if circuits.note(handed) | senderpauses.note(handed):
            forget_routes()
        begun = {h.departed.outbound.message.pk for h in handed}
        rest = [item for item in departed if item.outbound.message.pk not in begun]
        if rest:
            self._give_up_the_rest(rest, handed)

    def _give_up_the_rest(self, rest: Sequence[Departed], handed: Sequence[Handed]) -> None:
        """Due again at once, or when their provider has had the pause it asked for; soon where
        others may stand in for it."""
        pauses: dict[int, float] = {}
        for h in handed:
            if h.verdict.stops_provider:
                provider, pause = h.departed.outbound.provider, h.verdict.retry_after
                longest = STAND_IN_PAUSE if provider.pool else math.inf
                pauses[provider.pk] = min(pause or _ROUTE_PAUSE, longest)
        late = {
            item.outbound.message.pk: pauses[item.outbound.provider.pk]
            for item in rest
            if item.outbound.provider.pk in pauses
        }
        with transaction.atomic():
            give_back(one for item in rest for one in item.reserved)
            moved = self._put_off(late)
            soon = [i.outbound.message.pk for i in rest if i.outbound.message.pk not in late]
            moved |= transitions.release(soon, MessageState.DISPATCHING, owner=self._owner)
            # Of what was offered and refused too slowly for the lease nobody else knows that.
            lost = [item for item in rest if item.outbound.message.pk not in moved]
            transitions.settle([never_begun(i.outbound.message, i.attempt) for i in lost])
        # Of a sender that was refused: the gate tells them why they wait.
        self.is_cut_short |= any(h.verdict.blame == Blame.SENDER for h in handed)


def _what_stops() -> Callable[[Departed], bool]:
    switches = active_switches()

    def stops(item: Departed) -> bool:
        outbound = item.outbound
        message, sender, keys = outbound.message, outbound.sender, [outbound.provider.key]
        return switches.stopping(message, sender, keys, message.email_normalized) is not None

    return stops

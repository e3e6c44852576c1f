"""Delivery, batch by batch: claim → gate → render → gate again and commit the hand-over → hand
over → record. The number of queries does not depend on the size of the batch."""

import logging
import time
from collections.abc import Sequence
from typing import NamedTuple

from django.conf import settings
from django.db import Error, transaction

from common.addresses import address_hash
from common.bell import ring_later
from common.buckets import Bucket
from common.ids import lease_owner, uuid7
from common.postgres import insist
from contacts.models import Topic
from contacts.services import Recipient
from content.rendering import RenderError
from content.services import published_versions
from delivery import pace, transitions
from delivery.gate import Facts, load_facts, provider_of, refusal_of
from delivery.handover import Departed, hand_over
from delivery.journal import Journal, close_journal, open_journal
from delivery.models import Message, Provider
from delivery.outbound import Outbound, build_outbound
from delivery.recording import record
from delivery.routes import Route, RouteError, route_of
from delivery.senders import Senders, load_senders
from delivery.states import MessageState, Reason, Stream
from delivery.transitions import Departure, Refused
from suppression.services import lock_addresses

logger = logging.getLogger(__name__)

_UNROUTED_RATE = 1_000

BATCH = {Stream.TRANSACTIONAL: 25, Stream.MARKETING: 50}
"""Messages taken at once. Whoever waits for a receipt waits for the rest of its batch too, so
other workers are left something to take; a broadcast is in no hurry."""


class Ready(NamedTuple):
    """A rendered message, the address it was made for, and when its provider's pace allows it."""

    outbound: Outbound
    recipient: Recipient
    not_before: float


def drain(stream: str, *, budget: float) -> bool:
    """Deliver what is due on a stream for up to `budget` seconds; True if there may be more.

    What comes in after a batch that was not full has rung again.
    """
    deadline = time.monotonic() + budget
    limit = BATCH[Stream(stream)]
    # One at a time: a message that kills its worker must not take neighbours along.
    more_crashed = deliver_batch(stream, limit=1, crashed=True)
    while time.monotonic() < deadline:
        if not deliver_batch(stream, limit=limit):
            return more_crashed
    return True


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
        self._routes: dict[Provider, Route | RouteError] = {}

    def deliver(self) -> None:
        """Hand over what may leave, and settle everything."""
        try:
            journal, departed = self._depart()
        except Error:
            # Nothing has been begun, and how far the transaction got does not matter.
            insist(self._give_back)
            raise
        if departed:
            self._hand_over(departed, journal)
        if journal is not None:
            close_journal(journal)

    def _give_back(self) -> None:
        ids = [message.pk for message in self._messages]
        states = (MessageState.CLAIMED, MessageState.DISPATCHING)
        transitions.release(ids, *states, owner=self._owner)

    def _depart(self) -> tuple[Journal | None, list[Departed]]:
        """Everything up to the promise, after which only the provider can say no."""
        self._attach_related()
        senders = load_senders(self._messages)
        facts = load_facts(self._messages, senders)
        ready, refused = self._prepare(facts)
        journal = open_journal(self._handover_id) if ready else None
        if journal is None and len(ready) > 1:
            # A crash would leave the whole batch in doubt.
            spare = [item.outbound.message.pk for item in ready[1:]]
            transitions.release(spare, MessageState.CLAIMED, owner=self._owner)
            del ready[1:]
            self.is_cut_short = True
        return journal, self._commit(ready, refused, senders)

    def _attach_related(self) -> None:
        versions = published_versions({m.template_version_id for m in self._messages})
        topics = Topic.objects.in_bulk({m.topic_id for m in self._messages if m.topic_id})
        for message in self._messages:
            message.template_version = versions[message.template_version_id]
            message.topic = topics[message.topic_id] if message.topic_id else None

    def _prepare(self, facts: Facts) -> tuple[list[Ready], list[Refused]]:
        """Ask the gate, wait for a turn and render, outside any transaction."""
        refused: list[Refused] = []
        passed: list[Message] = []
        for message in self._messages:
            refusal = _refused(message, facts)
            if refusal is None:
                passed.append(message)
            else:
                refused.append(refusal)
        ready: list[Ready] = []
        for message, not_before in self._in_turn(passed, facts):
            prepared = _render(message, facts, not_before)
            if isinstance(prepared, Refused):
                refused.append(prepared)
            else:
                ready.append(prepared)
        return ready, refused

    def _in_turn(self, messages: Sequence[Message], facts: Facts) -> list[tuple[Message, float]]:
        """The messages whose providers take them soon, each with the moment from which; the
        others are put off until it is their turn."""
        if not messages:
            return []
        now = time.monotonic()
        waits = pace.take([[self._bucket(provider_of(m, facts))] for m in messages])
        late = {m.pk: w for m, w in zip(messages, waits, strict=True) if w > pace.WITHIN_SECONDS}
        if late:
            transitions.put_off(late, owner=self._owner)
            ring_later(self._stream, min(late.values()))
        return [
            (message, now + wait)
            for message, wait in zip(messages, waits, strict=True)
            if message.pk not in late
        ]

    def _bucket(self, provider: Provider) -> Bucket:
        route = self._route(provider)
        # Without a route nothing is handed over; the verdict comes with the others'.
        rate = route.rate_limit if isinstance(route, Route) else _UNROUTED_RATE
        return pace.provider_bucket(provider.key, rate)

    def _route(self, provider: Provider) -> Route | RouteError:
        if provider not in self._routes:
            try:
                self._routes[provider] = route_of(provider)
            except RouteError as error:
                self._routes[provider] = error
        return self._routes[provider]

    def _commit(
        self, ready: Sequence[Ready], refused: list[Refused], senders: Senders
    ) -> list[Departed]:
        """The gate's binding answer and the promise to hand over, in one transaction."""
        if not ready:
            transitions.refuse(refused, owner=self._owner)
            return []
        with transaction.atomic():
            leaving = self._leaving(ready, refused, senders)
            attempts = transitions.dispatch(
                [self._departure(item) for item in leaving],
                owner=self._owner,
                handover_id=self._handover_id,
                lease_seconds=settings.LEASE_SECONDS,
            )
        lost = len(leaving) - len(attempts)
        if lost:
            logger.warning("leases lost before dispatch", extra={"messages": lost})
        return [
            Departed(item.outbound, attempts[item.outbound.message.pk], item.not_before)
            for item in leaving
            if item.outbound.message.pk in attempts
        ]

    def _leaving(
        self, ready: Sequence[Ready], refused: list[Refused], senders: Senders
    ) -> list[Ready]:
        """Those that pass the gate under the lock; the others are settled here."""
        locks = (address_hash(item.recipient.email_normalized or "") for item in ready)
        lock_addresses(locks, shared=True)
        facts = load_facts([item.outbound.message for item in ready], senders)
        leaving, moved = [], []
        for item in ready:
            message = item.outbound.message
            refusal = _refused(message, facts)
            recipient = facts.recipients[message.contact_id]
            if refusal is not None:
                refused.append(refusal)
            elif recipient.email_normalized != item.recipient.email_normalized:
                # The lock and the rendered recipient are those of the old address.
                moved.append(message.pk)
            else:
                leaving.append(item)
        transitions.refuse(refused, owner=self._owner)
        if moved:
            transitions.release(moved, MessageState.CLAIMED, owner=self._owner)
        return leaving

    def _departure(self, item: Ready) -> Departure:
        outbound, recipient = item.outbound, item.recipient
        route = self._route(outbound.provider)
        return Departure(
            outbound.message.pk,
            outbound.provider.pk,
            route.backend if isinstance(route, Route) else "",
            recipient.email,
            recipient.email_normalized or "",
        )

    def _hand_over(self, departed: list[Departed], journal: Journal | None) -> None:
        handed = hand_over(departed, self._routes, journal)
        record(handed, journal)
        begun = {h.departed.outbound.message.pk for h in handed}
        rest = [d.outbound.message.pk for d in departed if d.outbound.message.pk not in begun]
        if rest:
            transitions.release(rest, MessageState.DISPATCHING, owner=self._owner)


def _refused(message: Message, facts: Facts) -> Refused | None:
    refusal = refusal_of(message, facts)
    if refusal is None:
        return None
    return Refused(message.pk, refusal.state, refusal.reason, refusal.detail)


def _render(message: Message, facts: Facts, not_before: float) -> Ready | Refused:
    recipient = facts.recipients[message.contact_id]
    sender = facts.senders.of(message)
    assert sender is not None  # the gate has asked
    provider = sender.provider
    try:
        outbound = build_outbound(
            message, sender=sender, provider=provider, address=recipient.email
        )
    except RenderError as error:
        return Refused(message.pk, MessageState.FAILED, Reason.RENDER_FAILED, str(error))
    except Exception as error:
        # Template and payload are not ours: whatever they do to one mail is that mail's fault.
        logger.exception("mail could not be made", extra={"message_uuid": str(message.pk)})
        detail = type(error).__name__
        return Refused(message.pk, MessageState.FAILED, Reason.RENDER_FAILED, detail)
    return Ready(outbound, recipient, not_before)

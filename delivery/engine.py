"""Delivery, batch by batch: claim → gate → render → gate again and commit the hand-over → hand
over → record. The number of queries does not depend on the size of the batch."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings
from django.db import transaction

from common.addresses import address_hash
from common.ids import lease_owner, uuid7
from content.rendering import RenderError
from delivery import transitions
from delivery.gate import Facts, load_facts, provider_of, refusal_of
from delivery.handover import Departed, hand_over
from delivery.journal import Journal, open_journal
from delivery.models import Message
from delivery.outbound import Outbound, build_outbound
from delivery.recording import record
from delivery.routes import route_name
from delivery.states import MessageState, Reason, Stream
from delivery.transitions import Departure, Refused
from suppression.services import lock_addresses

logger = logging.getLogger(__name__)

BATCH = {Stream.TRANSACTIONAL: 10, Stream.MARKETING: 50}
"""Messages taken at once. Whoever waits for a receipt waits for the rest of its batch too, so
other workers are left something to take; a broadcast is in no hurry."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A rendered message and the address it was made for."""

    outbound: Outbound
    email: str
    email_normalized: str

    @property
    def departure(self) -> Departure:
        message = self.outbound.message
        provider = self.outbound.provider
        route = route_name(provider)
        return Departure(message.pk, provider.pk, route, self.email, self.email_normalized)


def drain(stream: str, *, budget: float) -> bool:
    """Deliver what is due on a stream for up to `budget` seconds; True if there may be more."""
    deadline = time.monotonic() + budget
    while time.monotonic() < deadline:
        fresh = deliver_batch(stream, limit=BATCH[Stream(stream)])
        # One at a time: a message that kills its worker must not take neighbours along.
        crashed = deliver_batch(stream, limit=1, crashed=True)
        if not fresh and not crashed:
            return False
    return True


def deliver_batch(stream: str, *, limit: int, crashed: bool = False) -> int:
    """Take up to `limit` due messages as far as they get; returns how many were claimed."""
    owner = lease_owner()
    messages = _claim(stream, owner, limit=limit, crashed=crashed)
    if not messages:
        return 0
    ready, refused = _prepare(messages)
    handover_id = uuid7()
    journal = open_journal(handover_id) if ready else None
    if journal is None and len(ready) > 1:
        ready = _only_first(ready, owner)
    departed = _commit(ready, refused, owner=owner, handover_id=handover_id)
    if departed:
        _deliver(departed, journal, owner)
    if journal is not None:
        journal.close()
    return len(messages)


def _only_first(ready: list[Ready], owner: str) -> list[Ready]:
    # Without a journal a crash would leave the whole batch in doubt.
    spare = [item.outbound.message.pk for item in ready[1:]]
    transitions.release(spare, MessageState.CLAIMED, owner=owner)
    return ready[:1]


def _deliver(departed: list[Departed], journal: Journal | None, owner: str) -> None:
    handed = hand_over(departed, journal)
    record(handed)
    begun = {h.departed.outbound.message.pk for h in handed}
    rest = [d.outbound.message.pk for d in departed if d.outbound.message.pk not in begun]
    if rest:
        transitions.release(rest, MessageState.DISPATCHING, owner=owner)


def _claim(stream: str, owner: str, *, limit: int, crashed: bool) -> list[Message]:
    claimed = transitions.claim(
        stream, owner=owner, lease_seconds=settings.LEASE_SECONDS, limit=limit, crashed=crashed
    )
    if not claimed:
        return []
    related = ("template_version__template", "topic")
    rows = Message.objects.filter(pk__in=claimed).select_related(*related)
    return list(rows.order_by("due_at", "pk"))


def _prepare(messages: Sequence[Message]) -> tuple[list[Ready], list[Refused]]:
    """Ask the gate and render, outside any transaction."""
    facts = load_facts(messages)
    ready: list[Ready] = []
    refused: list[Refused] = []
    for message in messages:
        prepared = _refusal(message, facts) or _render(message, facts)
        if isinstance(prepared, Refused):
            refused.append(prepared)
        else:
            ready.append(prepared)
    return ready, refused


def _refusal(message: Message, facts: Facts) -> Refused | None:
    refusal = refusal_of(message, facts)
    if refusal is None:
        return None
    return Refused(message.pk, refusal.state, refusal.reason, refusal.detail)


def _render(message: Message, facts: Facts) -> Ready | Refused:
    contact = facts.contacts[message.contact_id]
    sender = facts.senders.of(message)
    assert sender is not None  # the gate has asked
    assert contact.email_normalized is not None
    provider = provider_of(message, facts)
    try:
        outbound = build_outbound(message, sender=sender, provider=provider, address=contact.email)
    except RenderError as error:
        return Refused(message.pk, MessageState.FAILED, Reason.RENDER_FAILED, str(error))
    except Exception as error:
        # Template and payload are not ours: whatever they do to one mail is that mail's fault.
        logger.exception("mail could not be made", extra={"message_uuid": str(message.pk)})
        detail = type(error).__name__
        return Refused(message.pk, MessageState.FAILED, Reason.RENDER_FAILED, detail)
    return Ready(outbound, contact.email, contact.email_normalized)


def _commit(
    ready: Sequence[Ready], refused: list[Refused], *, owner: str, handover_id: UUID
) -> list[Departed]:
    """The gate's binding answer and the promise to hand over, in one transaction.

    Returns the messages that may now be handed over, each with its attempt number.
    """
    with transaction.atomic():
        lock_addresses((address_hash(r.email_normalized) for r in ready), shared=True)
        facts = load_facts([r.outbound.message for r in ready])
        leaving, moved = [], []
        for item in ready:
            message = item.outbound.message
            refusal = _refusal(message, facts)
            contact = facts.contacts[message.contact_id]
            if refusal is not None:
                refused.append(refusal)
            elif contact.email_normalized != item.email_normalized:
                # The lock and the rendered recipient are those of the old address.
                moved.append(message.pk)
            else:
                leaving.append(item)
        transitions.refuse(refused, owner=owner)
        if moved:
            transitions.release(moved, MessageState.CLAIMED, owner=owner)
        attempts = transitions.dispatch(
            [item.departure for item in leaving],
            owner=owner,
            handover_id=handover_id,
            lease_seconds=settings.LEASE_SECONDS,
        )
    lost = len(leaving) - len(attempts)
    if lost:
        logger.warning("leases lost before dispatch", extra={"messages": lost})
    return [
        Departed(item.outbound, attempts[item.outbound.message.pk])
        for item in leaving
        if item.outbound.message.pk in attempts
    ]

"""Whether and how one message leaves: what the gate makes of it, the mail, the limits.

What a provider may already have (`replay_until`) is treated apart throughout: it is neither
skipped nor held nor failed.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from django.conf import settings

from common.buckets import Bucket
from contacts.services import Recipient
from content.rendering import RenderError
from delivery import circuits, pace
from delivery.gate import Facts, refusal_of
from delivery.mailboxes import mailbox_provider
from delivery.models import Message
from delivery.outbound import Outbound, build_outbound
from delivery.quotas import Full, Limit, Reserved, give_back, reserve
from delivery.routes import Route, RouteError
from delivery.routing import reason_of
from delivery.states import MessageState, Reason
from delivery.tracking import may_be_tracked
from delivery.transitions import Departure, Refused

logger = logging.getLogger(__name__)

_UNROUTED_RATE = 1_000
_HOLD_PAUSE = 60.0
_PROBE_PAUSE = 5.0


class Ready(NamedTuple):
    """A rendered message, the address it was made for, and when its provider's pace allows it."""

    outbound: Outbound
    recipient: Recipient
    not_before: float


Leaving = tuple[Ready, Sequence[Reserved]]
"""What may go, and what it counts against."""


def refused_by_gate(message: Message, facts: Facts) -> Refused | None:
    """The gate's answer as a move; None when the message may pass."""
    refusal = refusal_of(message, facts)
    if refusal is None:
        return None
    address = facts.recipients[message.contact_id].email_normalized or ""
    refused = Refused(message.pk, refusal.state, refusal.reason, refusal.detail, refusal.delay)
    return _in_its_doubt(message, replace(refused, mailboxes=mailbox_provider(address)))


def buckets_of(message: Message, facts: Facts, route: Route | RouteError) -> list[Bucket]:
    """What the message has to wait for: its provider's pace, and its mailbox provider's."""
    provider = facts.ways[message.pk].provider
    # Without a route nothing is handed over; the verdict comes with the others'.
    rate = route.rate_limit if isinstance(route, Route) else _UNROUTED_RATE
    # Whoever counts calls is asked when there is one: it may carry many mails.
    counts_calls = isinstance(route, Route) and route.traits.counts_calls
    buckets = [] if counts_calls else [pace.provider_bucket(provider.key, rate)]
    mailboxes = mailbox_provider(facts.recipients[message.contact_id].email_normalized or "")
    limit = settings.EMAILAUTO.provider.mailbox_rates.get(mailboxes)
    if limit is not None:
        sender = facts.senders.of(message)
        domain = sender.domain if sender is not None else ""
        buckets.append(pace.mailbox_bucket(provider.key, domain, mailboxes, limit))
    return buckets


def made(
    message: Message, facts: Facts, route: Route | RouteError, not_before: float
) -> Ready | Refused:
    """The mail to the person as the facts have it, on the way that the gate has found."""
    recipient = facts.recipients[message.contact_id]
    sender = facts.senders.of(message)
    assert sender is not None  # the gate has asked
    provider = facts.ways[message.pk].provider
    try:
        outbound = build_outbound(
            message,
            sender=sender,
            provider=provider,
            address=recipient.email,
            has_metadata=not isinstance(route, Route) or route.traits.has_metadata,
            is_tracked=may_be_tracked(message, recipient),
        )
    except RenderError as error:
        return _unmade(message, str(error))
    except Exception as error:
        # Template and payload are not ours: whatever they do to one mail is that mail's fault.
        logger.exception("mail could not be made", extra={"message_uuid": str(message.pk)})
        return _unmade(message, type(error).__name__)
    if message.replay_until is not None and (other := _not_the_same(message, route, outbound)):
        return other
    return Ready(outbound, recipient, not_before)


def _not_the_same(
    message: Message, route: Route | RouteError, outbound: Outbound
) -> Refused | None:
    """Why a repeated call would be another one than the first, or cannot be made now."""
    if isinstance(route, RouteError):
        reason = Reason.PROVIDER_DOWN
        return Refused(message.pk, MessageState.QUEUED, reason, str(route), _HOLD_PAUSE)
    if route.backend != message.route:
        return _unmade(message, "its provider is another one now")
    if bytes(message.wire_hash or b"") != outbound.wire_hash:
        return _unmade(message, "the mail is not the same any more")
    return None


def within_limits(passed: Sequence[Ready], refused: list[Refused], facts: Facts) -> list[Leaving]:
    """Those within all limits, counted; the others wait for the next window."""
    grants = reserve([_limits(item, facts) for item in passed])
    leaving: list[Leaving] = []
    for item, grant in zip(passed, grants, strict=True):
        if isinstance(grant, Full):
            message = item.outbound.message
            reason = reason_of(grant.limit)
            # In doubt it has to stay due, or nobody would notice the end of its time.
            is_in_doubt = message.replay_until is not None
            state = MessageState.QUEUED if is_in_doubt else MessageState.HELD
            key = item.outbound.provider.key
            refused.append(Refused(message.pk, state, reason, key, grant.seconds))
        else:
            leaving.append((item, grant))
    return leaving


def unless_probed(passed: Sequence[Leaving], refused: list[Refused], facts: Facts) -> list[Leaving]:
    """Without those that would have tried whether a provider is back, where another worker does."""
    ways = {item.outbound.message.pk: facts.ways[item.outbound.message.pk] for item, _ in passed}
    mine = circuits.claim_probes([way.provider.pk for way in ways.values() if way.is_probe])
    leaving: list[Leaving] = []
    unused: list[Reserved] = []
    for item, reserved in passed:
        way = ways[item.outbound.message.pk]
        if way.is_probe and way.provider.pk not in mine:
            pk, key = item.outbound.message.pk, way.provider.key
            reason = Reason.PROVIDER_DOWN
            refused.append(Refused(pk, MessageState.QUEUED, reason, key, _PROBE_PAUSE))
            unused.extend(reserved)
        else:
            leaving.append((item, reserved))
    give_back(unused)
    return leaving


def departure_of(item: Ready, route: Route | RouteError) -> Departure:
    """The move of a message that leaves."""
    outbound, recipient = item.outbound, item.recipient
    return Departure(
        outbound.message.pk,
        outbound.provider.pk,
        route.way_of(outbound.message) if isinstance(route, Route) else "",
        recipient.email,
        recipient.email_normalized or "",
        outbound.sender.domain,
        mailbox_provider(recipient.email_normalized or ""),
        outbound.wire_hash,
        outbound.is_tracked,
    )


def _limits(item: Ready, facts: Facts) -> list[Limit]:
    outbound = item.outbound
    return facts.router.limits(outbound.provider, outbound.message, outbound.sender, item.recipient)


def _unmade(message: Message, detail: str) -> Refused:
    failed = Refused(message.pk, MessageState.FAILED, Reason.RENDER_FAILED, detail)
    return _in_its_doubt(message, failed)


def _in_its_doubt(message: Message, refused: Refused) -> Refused:
    """A message that the provider may have is neither skipped nor held nor failed: what becomes of
    it is not ours to say any more."""
    if message.replay_until is None or refused.state == MessageState.QUEUED:
        return refused
    if refused.state == MessageState.HELD:
        # What holds it may go away before the time is over; who is held is not looked after.
        return replace(refused, state=MessageState.QUEUED, delay=refused.delay or _HOLD_PAUSE)
    state, reason = MessageState.UNKNOWN, Reason.OUTCOME_UNKNOWN
    return Refused(message.pk, state, reason, f"not asked again: {refused.reason.value}")

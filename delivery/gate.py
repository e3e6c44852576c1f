"""May this message leave, now, to this address?

Asked twice with the same function: when a message is claimed, and again inside the transaction
that commits its hand-over, where the answer is binding. The number of queries that load the
facts, and refresh them, does not depend on the number of messages; deciding is pure. An exception
in a check means: do not send.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from django.conf import settings

from common.addresses import address_hash
from contacts.models import Topic
from contacts.services import Recipient, recipients
from contacts.states import ConsentState, TopicPolicy
from delivery.models import Message
from delivery.routing import NoWay, Router, Way, load_router
from delivery.senders import Senders, load_senders
from delivery.states import MessageState, Reason, Stream
from delivery.switches import Switches, active_switches
from delivery.weekly import Week, binding_week, week_so_far
from suppression.services import suppressed_scopes
from suppression.states import scopes_blocking

# Nobody is told when a sender or a provider is set up; what waits for one asks now and then.
_LOOK_AGAIN = 300.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message does not leave, and the state it is put into: `skipped` is final, `held`
    waits for an operator or for what stopped it to go away, `queued` for `delay` seconds."""

    reason: Reason
    state: MessageState = MessageState.SKIPPED
    detail: str = ""
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the gate needs to know about a batch, as it stood at one moment.

    `ways` is the gate's own note of the way out it found for a message; the second time it is
    asked about the message, the way stands.
    """

    recipients: Mapping[int, Recipient]
    suppressed: Mapping[bytes, frozenset[str]]
    switches: Switches
    senders: Senders
    router: Router
    week: Week
    ways: dict[UUID, Way] = field(default_factory=dict)


def load_facts(messages: Sequence[Message]) -> Facts:
    """The facts about these messages. Eight queries, five where the router was asked a moment ago;
    with limits, warm-ups or people who want only so many mails a week up to three more."""
    switches = active_switches()
    senders, router = load_senders(messages), load_router(switches)
    return _facts(messages, switches, senders, router, {}, week_so_far)


def refreshed(facts: Facts, messages: Sequence[Message]) -> Facts:
    """The facts as they stand now about the people and what is switched off; the ways found
    remain. Three queries, with people who want only so many mails a week five. Inside the
    transaction that commits the hand-overs, under the locks of the addresses."""
    senders, router = facts.senders, facts.router
    return _facts(messages, active_switches(), senders, router, facts.ways, binding_week)


def _facts(
    messages: Sequence[Message],
    switches: Switches,
    senders: Senders,
    router: Router,
    ways: dict[UUID, Way],
    week: Callable[[Mapping[int, int]], Week],
) -> Facts:
    # What they said about topics takes longest to look up, and is for marketing alone.
    marketing = any(message.stream == Stream.MARKETING for message in messages)
    found = recipients({message.contact_id for message in messages}, subscriptions=marketing)
    limits = {pk: r.weekly_limit for pk, r in found.items() if r.weekly_limit is not None}
    hashes = {address_hash(r.email_normalized) for r in found.values() if r.email_normalized}
    return Facts(
        recipients=found,
        suppressed=suppressed_scopes(hashes),
        switches=switches,
        senders=senders,
        router=router,
        week=week(limits),
        ways=ways,
    )


def refusal_of(message: Message, facts: Facts) -> Refusal | None:
    """The first check that says no, or None. Never raises: a failing check holds the message."""
    try:
        for check in _CHECKS:
            refusal = check(message, facts)
            if refusal is not None:
                return refusal
    except Exception as error:
        # Whatever went wrong, not sending is right, and an operator sees it in the held list.
        logger.exception("gate check failed", extra={"message_uuid": str(message.pk)})
        return Refusal(Reason.GATE_FAILED, MessageState.HELD, type(error).__name__)
    return None


def _switched_off(message: Message, facts: Facts) -> Refusal | None:
    providers = []
    sender = facts.senders.of(message)
    if sender is not None:
        providers.append(sender.provider.key)
    if message.pk in facts.ways:
        providers.append(facts.ways[message.pk].provider.key)
    address = facts.recipients[message.contact_id].email_normalized or ""
    switch = facts.switches.stopping(message, sender, providers, address)
    if switch is None:
        return None
    stopped = switch.reason == Reason.CAMPAIGN_STOPPED
    state = MessageState.SKIPPED if stopped else MessageState.HELD
    return Refusal(Reason(switch.reason), state, switch.note)


def _routable(message: Message, facts: Facts) -> Refusal | None:
    if message.pk in facts.ways:
        return None
    sender = facts.senders.of(message)
    if sender is None:
        return Refusal(Reason.NO_SENDER, MessageState.HELD, delay=_LOOK_AGAIN)
    way = facts.router.choose(message, sender, facts.recipients[message.contact_id])
    if isinstance(way, NoWay):
        is_down = way.reason == Reason.PROVIDER_DOWN
        state = MessageState.QUEUED if is_down else MessageState.HELD
        return Refusal(way.reason, state, way.detail, way.seconds)
    facts.ways[message.pk] = way
    return None


def _in_time(message: Message, _facts: Facts) -> Refusal | None:
    # By the database's clock, as it was claimed. The provider would take it for a new mail.
    if message.is_too_late:
        return Refusal(Reason.OUTCOME_UNKNOWN, MessageState.UNKNOWN)
    return None


def _reachable(message: Message, facts: Facts) -> Refusal | None:
    recipient = facts.recipients[message.contact_id]
    if not recipient.is_active:
        return Refusal(Reason.CONTACT_INACTIVE)
    if not recipient.email_normalized:
        return Refusal(Reason.NO_ADDRESS)
    if not recipient.email.isascii():
        return Refusal(Reason.NEEDS_SMTPUTF8)
    return None


def _consented(message: Message, facts: Facts) -> Refusal | None:
    if message.stream != Stream.MARKETING:
        return None
    topic = message.topic
    if topic is None:
        return Refusal(Reason.NO_TOPIC)
    said = facts.recipients[message.contact_id].subscriptions.get(topic.pk)
    if said == ConsentState.WITHDRAWN:
        return Refusal(Reason.CONSENT_WITHDRAWN, detail=topic.key)
    if said == ConsentState.PENDING:
        return Refusal(Reason.CONSENT_PENDING, detail=topic.key)
    if said is None and _needs_consent(topic):
        return Refusal(Reason.CONSENT_MISSING, detail=topic.key)
    return None


def _needs_consent(topic: Topic) -> bool:
    compliance = settings.EMAILAUTO.compliance
    return compliance.consent_check and compliance.gdpr and topic.policy == TopicPolicy.OPT_IN


def _unsuppressed(message: Message, facts: Facts) -> Refusal | None:
    address = facts.recipients[message.contact_id].email_normalized
    assert address is not None  # _reachable has asked
    topic = message.topic.key if message.topic is not None else ""
    blocking = scopes_blocking(message.stream, topic)
    hit = facts.suppressed.get(address_hash(address), frozenset()) & blocking
    return Refusal(Reason.SUPPRESSED, detail=", ".join(sorted(hit))) if hit else None


def _unobjected(message: Message, facts: Facts) -> Refusal | None:
    # The address they objected with is suppressed; this goes with them to their next one.
    if message.stream == Stream.MARKETING and facts.recipients[message.contact_id].has_objected:
        return Refusal(Reason.OBJECTED)
    return None


def _wanted_now(message: Message, facts: Facts) -> Refusal | None:
    if message.stream == Stream.MARKETING and facts.recipients[message.contact_id].is_paused:
        return Refusal(Reason.PAUSED)
    return None


def _within_the_week(message: Message, facts: Facts) -> Refusal | None:
    # What the provider may have already is counted already.
    if message.stream != Stream.MARKETING or message.replay_until is not None:
        return None
    if facts.week.has_room(message.contact_id):
        return None
    limit = facts.recipients[message.contact_id].weekly_limit
    return Refusal(Reason.WEEKLY_LIMIT, detail=f"at most {limit}")


# Cheapest and widest first; the order is what a marketer reads as *the* reason. The week is last:
# whoever it lets pass has taken a place in it.
_CHECKS = (
    *(_switched_off, _in_time, _reachable, _consented, _unsuppressed, _unobjected),
    *(_wanted_now, _routable, _within_the_week),
)

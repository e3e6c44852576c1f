"""May this message leave, now, to this address?

Asked twice with the same function: when a message is claimed, and again inside the transaction
that commits its hand-over, where the answer is binding. Loading the facts is three queries for
any number of messages; deciding is pure. An exception in a check means: do not send.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.conf import settings

from common.addresses import address_hash
from contacts.models import Topic
from contacts.services import Recipient, recipients
from contacts.states import ConsentState, TopicPolicy
from delivery.models import Message, Provider, Switch
from delivery.senders import Senders
from delivery.states import MessageState, Reason, Stream
from suppression.services import suppressed_scopes
from suppression.states import scopes_blocking

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message does not leave, and the state it is put into: `skipped` is final, `held`
    waits for an operator or for what stopped it to go away."""

    reason: Reason
    state: MessageState = MessageState.SKIPPED
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the gate needs to know about a batch, as it stood at one moment."""

    recipients: Mapping[int, Recipient]
    suppressed: Mapping[bytes, frozenset[str]]
    switches: Mapping[tuple[str, str], Switch]
    senders: Senders


def load_facts(messages: Sequence[Message], senders: Senders) -> Facts:
    """The facts about these messages' recipients and what is switched off. Three queries."""
    found = recipients({message.contact_id for message in messages})
    hashes = {address_hash(r.email_normalized) for r in found.values() if r.email_normalized}
    return Facts(
        recipients=found,
        suppressed=suppressed_scopes(hashes),
        switches={(switch.target, switch.key): switch for switch in Switch.objects.all()},
        senders=senders,
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
    sender = facts.senders.of(message)
    keys = [(Switch.Target.EVERYTHING, ""), (Switch.Target.CAMPAIGN, message.origin_campaign)]
    if sender is not None:
        keys.append((Switch.Target.PROVIDER, sender.provider.key))
    for target, key in keys:
        switch = facts.switches.get((target, key))
        if switch is not None:
            stopped = switch.reason == Reason.CAMPAIGN_STOPPED
            state = MessageState.SKIPPED if stopped else MessageState.HELD
            return Refusal(Reason(switch.reason), state, switch.note)
    return None


def _routable(message: Message, facts: Facts) -> Refusal | None:
    sender = facts.senders.of(message)
    if sender is None:
        return Refusal(Reason.NO_SENDER, MessageState.HELD)
    if not sender.provider.is_active:
        return Refusal(Reason.NO_PROVIDER, MessageState.HELD, sender.provider.key)
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


# Cheapest and widest first; the order is what a marketer reads as *the* reason.
_CHECKS = (_switched_off, _reachable, _consented, _unsuppressed, _routable)


def provider_of(message: Message, facts: Facts) -> Provider:
    """The provider of a message that the gate let pass."""
    sender = facts.senders.of(message)
    assert sender is not None  # _routable has asked
    return sender.provider

"""How things stand between a person and our mail, as their page shows it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings

from common.addresses import Address, address_hash
from common.clock import now
from contacts.models import Contact, Subscription, Topic
from contacts.states import ConsentState, TopicPolicy
from delivery.models import Message
from suppression.services import suppressions_of
from suppression.states import ALL, MARKETING, SuppressionReason, topic_scope

Suppressed = Mapping[str, frozenset[str]]
"""Scope → the reasons it is suppressed for, over all addresses of the person."""


@dataclass(frozen=True, slots=True)
class TopicLine:
    """A topic, whether it is on, what was last said about it, and what else stops its mail."""

    topic: Topic
    is_on: bool
    comes_back: bool
    """Off only because everything is."""
    said: str
    blocked_by: str = ""

    @property
    def is_pending(self) -> bool:
        return self.said == ConsentState.PENDING


@dataclass(frozen=True, slots=True)
class Standing:
    """Everything the preference page shows. What the person has unsubscribed from themselves is
    simply off; `blocked_by` is what their ticks cannot change."""

    contact: Contact
    addresses: tuple[Address, ...]
    """Where the mail went, and where mail goes now if that is another."""
    topics: tuple[TopicLine, ...]
    blocked_by: str

    @property
    def is_moved(self) -> bool:
        """The link is in a mail to an address that the person has left: whoever reads it there
        may turn things off, not on."""
        return len(self.addresses) > 1

    @property
    def paused_until(self) -> datetime | None:
        """The end of their pause, where it is not over."""
        until = self.contact.paused_until
        return until if until is not None and until > now() else None


def read_standing(message: Message, contact: Contact) -> Standing:
    """Three queries, however many topics there are."""
    addresses = addresses_of(message, contact)
    suppressed = _suppressed(addresses)
    said = dict(Subscription.objects.filter(contact=contact).values_list("topic_id", "state"))
    is_unsubscribed = SuppressionReason.UNSUBSCRIBE in suppressed.get(MARKETING, frozenset())
    is_all_off = is_unsubscribed or contact.objected_at is not None
    lines = []
    for topic in Topic.objects.all():
        state = said.get(topic.pk, "")
        is_on = _is_on(topic, state, suppressed)
        blocked_by = _blocking(suppressed, topic_scope(topic.key))
        on, back = is_on and not is_all_off, is_on and is_all_off
        lines.append(TopicLine(topic, on, back, state, blocked_by))
    blocked_by = _blocking(suppressed, ALL, MARKETING)
    return Standing(contact, addresses, tuple(lines), blocked_by)


def addresses_of(message: Message, contact: Contact) -> tuple[Address, ...]:
    """Where the mail went, and where mail goes now if that is another."""
    pairs = [
        (message.email, message.email_normalized),
        (contact.email, contact.email_normalized or ""),
    ]
    found = {normalized: Address(email, normalized) for email, normalized in pairs if normalized}
    return tuple(found.values())


def _suppressed(addresses: Iterable[Address]) -> Suppressed:
    reasons: dict[str, set[str]] = {}
    hashes = [address_hash(address.normalized) for address in addresses]
    for scope, reason in suppressions_of(hashes):
        reasons.setdefault(scope, set()).add(reason)
    return {scope: frozenset(found) for scope, found in reasons.items()}


def _is_on(topic: Topic, said: str, suppressed: Suppressed) -> bool:
    if SuppressionReason.UNSUBSCRIBE in suppressed.get(topic_scope(topic.key), frozenset()):
        return False
    if said:
        return said == ConsentState.GRANTED
    compliance = settings.EMAILAUTO.compliance
    asked = compliance.consent_check and compliance.gdpr
    return topic.policy == TopicPolicy.OPT_OUT or not asked


def _blocking(suppressed: Suppressed, *scopes: str) -> str:
    """The strongest reason that is not their own doing; SuppressionReason is in that order."""
    found = {reason for scope in scopes for reason in suppressed.get(scope, frozenset())}
    others = [r for r in SuppressionReason if r in found and r != SuppressionReason.UNSUBSCRIBE]
    return str(others[0]) if others else ""

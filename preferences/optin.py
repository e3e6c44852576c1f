"""Subscribing somebody to a topic, and asking them first where the topic wants it.

The mail that asks carries no advertising (it is answered before there is consent to any), and at
most one goes to an address about a topic on one day, whoever asks how often.
"""

from dataclasses import dataclass
from enum import StrEnum

from django.db import transaction

from common.addresses import Address, address_hash
from common.bell import ring
from contacts.ledger import ConsentChange, record_consents
from contacts.models import Consent, Contact, Subscription, Topic
from contacts.services import Identity, resolve_contacts
from contacts.states import ConsentState
from delivery.models import Message
from delivery.states import Stream
from preferences.asking import ask
from preferences.proof import Proof
from preferences.services import locked, turn_on_topic
from suppression.services import lock_addresses, suppressions_of
from suppression.states import SuppressionReason, scopes_blocking


class AddressTaken(Exception):
    """The address belongs to another user id; nothing was recorded."""


class Answer(StrEnum):
    """What became of a request to subscribe somebody."""

    GRANTED = "granted"
    """Consent is on record, now or since before."""
    PENDING = "pending"
    """They are asked by mail."""
    SUPPRESSED = "suppressed"
    """The address must not be written to; nothing was recorded."""


@dataclass(frozen=True, slots=True)
class Application:
    """Somebody wants a topic's mail, says `source`."""

    address: Address
    user_id: str
    topic: Topic
    source: str
    evidence: str = ""
    locale: str = ""


def subscribe(application: Application) -> Answer:
    """Record the consent, or that it is to be confirmed and ask for that by mail. Idempotent.

    A consent that a shop reports does not lift an unsubscribe, one that the person confirms does.
    """
    digest = address_hash(application.address.normalized)
    with transaction.atomic():
        lock_addresses([digest], shared=False)
        reasons = _reasons(digest, application.topic)
        if reasons - {SuppressionReason.UNSUBSCRIBE}:
            return Answer.SUPPRESSED
        contact = _contact(application)
        if contact.objected_at is not None:
            reasons.add(SuppressionReason.UNSUBSCRIBE)
        said = Subscription.objects.filter(contact=contact, topic=application.topic).first()
        state = said.state if said is not None else ""
        if state == ConsentState.GRANTED and not reasons:
            return Answer.GRANTED
        if not application.topic.double_opt_in:
            if state != ConsentState.GRANTED:
                _record(application, contact, ConsentState.GRANTED)
            return Answer.SUPPRESSED if reasons else Answer.GRANTED
        if state != ConsentState.PENDING:
            _record(application, contact, ConsentState.PENDING)
        ask(contact, application.topic)
    ring(Stream.TRANSACTIONAL.value)
    return Answer.PENDING


def is_open(message: Message) -> bool:
    """Whether what the mail asks for still waits for an answer, or has had a yes that stands."""
    topic = topic_of(message)
    contact = message.contact
    if topic is None or contact.email_normalized != message.email_normalized:
        return False
    states = (ConsentState.PENDING, ConsentState.GRANTED)
    return Subscription.objects.filter(contact=contact, topic=topic, state__in=states).exists()


def confirm(message: Message, proof: Proof) -> bool:
    """Turn the consent this mail asked for into a granted one; False when it does not wait any
    more, because the person has said no since or has another address. Idempotent."""
    topic = topic_of(message)
    with transaction.atomic():
        before, contact = locked(message)
        line = next((line for line in before.topics if line.topic == topic), None)
        if line is None or before.is_moved or contact.erased_at is not None:
            return False
        if line.is_pending:
            asked = Consent.objects.filter(contact=contact, topic=line.topic).first()
            turn_on_topic(before, line.topic, proof, confirming=_in_words(asked))
            return True
        return line.is_on


def topic_of(message: Message) -> Topic | None:
    """The topic a confirmation mail asks about."""
    key = (message.context.get("about") or {}).get("topic", "")
    return Topic.objects.filter(key=key).first()


def _reasons(digest: bytes, topic: Topic) -> set[str]:
    scopes = scopes_blocking(Stream.MARKETING, topic.key)
    return {reason for scope, reason in suppressions_of([digest]) if scope in scopes}


def _contact(application: Application) -> Contact:
    (contact,) = resolve_contacts([Identity(application.user_id, application.address)])
    if contact.email_normalized != application.address.normalized:
        raise AddressTaken
    if application.locale and not contact.locale:
        contact.locale = application.locale
        contact.save(update_fields=["locale"])
    return contact


def _record(application: Application, contact: Contact, state: ConsentState) -> None:
    source, evidence = application.source, application.evidence
    record_consents([ConsentChange(contact, application.topic, state, source, evidence)])


def _in_words(line: Consent | None) -> str:
    return f"confirms line {line.pk} of {line.at:%Y-%m-%d %H:%M} UTC" if line is not None else ""

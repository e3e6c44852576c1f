"""What a recipient decides about being mailed. Each choice is one function and one transaction;
when it returns, no hand-over whose transaction starts later ignores it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from common.addresses import address_hash
from common.bell import ring
from common.clock import now
from contacts.ledger import ConsentChange, lift_objection, record_consents, record_tracking
from contacts.models import Contact, Topic
from contacts.states import ConsentState
from delivery.models import Message
from delivery.states import Stream
from preferences.asking import ask
from preferences.proof import Proof
from preferences.standing import Standing, TopicLine, addresses_of, read_standing
from suppression.services import (
    SuppressionRequest,
    lift_unsubscribes,
    lock_addresses,
    suppress_addresses,
)
from suppression.states import MARKETING, SuppressionReason, topic_scope
from webhooks.feedback import Feedback, FeedbackKind, apply_feedback


@dataclass(frozen=True, slots=True)
class Wish:
    """Everything a person says on their page, as a whole: what they saw and is not ticked is not
    wanted."""

    topics: frozenset[str]
    """Keys of what is ticked."""
    may_track: bool
    do_not_share: bool
    weekly_limit: int | None
    pause_days: int | None
    """From today; 0 ends a pause, None leaves it as it is."""
    locale: str
    shown: frozenset[str] | None = None
    """Keys of the topics that the page had; None: all there are."""
    was_on: frozenset[str] = frozenset()
    """Keys of those that were ticked when they got the page: nothing that they ticked themselves.
    `TRACKING` stands for the recording."""


TRACKING = "*tracking"
"""No key of a topic."""


def unsubscribe(message: Message, scope: str, *, source: str, evidence: str = "") -> None:
    """Suppress the address this message was sent to, and the person's own where that is another,
    in this scope; withdraw the consent to its topic, and for all marketing note the objection.
    Idempotent; when this returns it is committed, and no hand-over whose transaction starts later
    ignores it. Of somebody who was erased there is nothing left to take back."""
    if message.contact.erased_at is not None:
        return
    evidence = evidence or f"message {message.pk}"
    with transaction.atomic():
        addresses = addresses_of(message, message.contact)
        lock_addresses((address_hash(a.normalized) for a in addresses), shared=False)
        apply_feedback(
            [
                Feedback(
                    kind=FeedbackKind.UNSUBSCRIBED,
                    at=now(),
                    source=source,
                    message_uuid=message.pk,
                    scope=scope,
                    detail=evidence,
                )
            ]
        )
        others = [a for a in addresses if a.normalized != message.email_normalized]
        reason = SuppressionReason.UNSUBSCRIBE
        suppress_addresses([SuppressionRequest(a, scope, reason, source, evidence) for a in others])


def save_wish(message: Message, wish: Wish, proof: Proof) -> Standing:
    """Make the person's wish count, write down what changed, and return how things stand now.

    A topic that is ticked again is consented to anew, and the person's own unsubscribe of it is
    lifted; what others have said of the address (complaint, bounce, a hand) stays. Where the topic
    wants it, they are asked by mail first: anybody who was passed the link can tick. Idempotent.
    """
    with transaction.atomic():
        before, contact = locked(message)
        if contact.erased_at is not None:
            return before
        if before.is_moved:
            wish = _only_stricter(wish, contact)
        ticked = [line for line in before.topics if _is_granted(line, wish, before)]
        granted = [line.topic for line in ticked if not line.topic.double_opt_in]
        withdrawn = [line.topic for line in before.topics if _is_withdrawn(line, wish, granted)]
        _turn_off(message, before, withdrawn, proof)
        _turn_on(before, granted, proof)
        _ask(before, [line for line in ticked if line.topic.double_opt_in], proof)
        if wish.may_track and TRACKING in wish.was_on and not contact.may_track:
            wish = replace(wish, may_track=False)
        if wish.may_track != contact.may_track:
            state = ConsentState.GRANTED if wish.may_track else ConsentState.WITHDRAWN
            record_tracking([contact], state, source=proof.source, evidence=proof.evidence)
        _save_contact(contact, wish)
        return read_standing(message, contact)


def stop_everything(message: Message, proof: Proof) -> Standing:
    """No marketing mail at all any more, no recording, and every consent taken back."""
    with transaction.atomic():
        before, contact = locked(message)
        if contact.erased_at is not None:
            return before
        unsubscribe(message, MARKETING, source=proof.source, evidence=proof.evidence)
        contact.refresh_from_db(fields=["objected_at"])
        given = (ConsentState.GRANTED, ConsentState.PENDING)
        # What the feedback has just taken back is not taken back twice.
        now_said = read_standing(message, contact)
        _record([ln.topic for ln in now_said.topics if ln.said in given], contact, proof)
        if contact.may_track:
            withdrawn = ConsentState.WITHDRAWN
            record_tracking([contact], withdrawn, source=proof.source, evidence=proof.evidence)
            contact.may_track = False
        return read_standing(message, contact)


def turn_on_topic(before: Standing, topic: Topic, proof: Proof, *, confirming: str) -> None:
    """One topic by itself, because the person has confirmed it. Inside the transaction of
    `locked`, whose standing it is."""
    # With the unsubscribe from everything goes what kept the others off.
    others = [line.topic for line in before.topics if line.comes_back and line.topic != topic]
    _suppress(before, [topic_scope(other.key) for other in others], proof)
    _record(others, before.contact, proof)
    _turn_on(before, [topic], replace(proof, note=confirming))


def locked(message: Message) -> tuple[Standing, Contact]:
    """How things stand, kept still until the transaction ends: the addresses against hand-overs
    and feedback, then the row against the other tab of the browser."""
    known = (message.email_normalized, message.contact.email_normalized)
    lock_addresses((address_hash(a) for a in set(known) if a), shared=False)
    contact = Contact.objects.select_for_update(no_key=True).get(pk=message.contact_id)
    return read_standing(message, contact), contact


def _only_stricter(wish: Wish, contact: Contact) -> Wish:
    """What whoever reads the mail to an address that the person has left may change for them. How
    the topics are kept to it is seen where they are turned on."""
    limits = [n for n in (wish.weekly_limit, contact.weekly_limit) if n is not None]
    pause = wish.pause_days or None
    if pause is not None and (until := contact.paused_until) is not None:
        longer = _end_of_pause(until, pause)
        pause = pause if longer is not None and longer > until else None
    return replace(
        wish,
        may_track=wish.may_track and contact.may_track,
        do_not_share=wish.do_not_share or contact.do_not_share,
        weekly_limit=min(limits, default=None),
        pause_days=pause,
        locale=contact.locale,
    )


def _is_granted(line: TopicLine, wish: Wish, before: Standing) -> bool:
    key = line.topic.key
    is_their_tick = key in wish.topics - wish.was_on and (wish.shown is None or key in wish.shown)
    return is_their_tick and not line.is_on and not before.is_moved


def _is_withdrawn(line: TopicLine, wish: Wish, granted: Sequence[Topic]) -> bool:
    if line.topic in granted:
        return False
    # With the unsubscribe from everything goes what kept the others off.
    if granted and line.comes_back:
        return True
    is_shown = wish.shown is None or line.topic.key in wish.shown
    return line.is_on and is_shown and line.topic.key not in wish.topics


def _turn_off(message: Message, before: Standing, topics: Sequence[Topic], proof: Proof) -> None:
    if not topics:
        return
    if message.topic is not None and message.topic in topics:
        # The mail is what they said it of: that counts for its campaign and sender, too.
        scope = topic_scope(message.topic.key)
        unsubscribe(message, scope, source=proof.source, evidence=proof.evidence)
    _suppress(before, [topic_scope(topic.key) for topic in topics], proof)
    rest = [topic for topic in topics if topic != message.topic]
    _record(rest, before.contact, proof)


def _turn_on(before: Standing, topics: Sequence[Topic], proof: Proof) -> None:
    if not topics:
        return
    hashes = [address_hash(address.normalized) for address in before.addresses]
    lift_unsubscribes(hashes, [MARKETING, *(topic_scope(topic.key) for topic in topics)])
    lift_objection(before.contact, source=proof.source, evidence=proof.evidence)
    _record(topics, before.contact, proof, ConsentState.GRANTED)


def _ask(before: Standing, lines: Sequence[TopicLine], proof: Proof) -> None:
    """As for whom a form subscribes: who is not to be written to is not asked."""
    lines = [line for line in lines if not (before.blocked_by or line.blocked_by)]
    if not lines:
        return
    new = [line.topic for line in lines if not line.is_pending]
    _record(new, before.contact, proof, ConsentState.PENDING)
    for line in lines:
        ask(before.contact, line.topic)
    transaction.on_commit(lambda: ring(Stream.TRANSACTIONAL.value))


def _suppress(before: Standing, scopes: Iterable[str], proof: Proof) -> None:
    suppress_addresses(
        [
            SuppressionRequest(
                address, scope, SuppressionReason.UNSUBSCRIBE, proof.source, proof.evidence
            )
            for address in before.addresses
            for scope in scopes
        ]
    )


def _record(
    topics: Iterable[Topic],
    contact: Contact,
    proof: Proof,
    state: ConsentState = ConsentState.WITHDRAWN,
) -> None:
    record_consents(
        [
            ConsentChange(contact, topic, state, proof.source, _with_words(proof, topic))
            for topic in topics
        ]
    )


def _with_words(proof: Proof, topic: Topic) -> str:
    """What they read next to the tick is part of what they agreed to."""
    words = f"{topic.name}: {topic.description}" if topic.description else topic.name
    return f"{proof.evidence}; “{words}”"


def _save_contact(contact: Contact, wish: Wish) -> None:
    wanted: dict[str, Any] = {
        "do_not_share": wish.do_not_share,
        "weekly_limit": wish.weekly_limit,
        "locale": wish.locale,
        "paused_until": _end_of_pause(contact.paused_until, wish.pause_days),
    }
    changed = {name: value for name, value in wanted.items() if getattr(contact, name) != value}
    for name, value in changed.items():
        setattr(contact, name, value)
    contact.may_track = wish.may_track
    if changed:
        contact.updated_at = now()
        contact.save(update_fields=[*changed, "updated_at"])


def _end_of_pause(until: datetime | None, days: int | None) -> datetime | None:
    """At a midnight (UTC), so that saying it twice on one day says the same."""
    if days is None:
        return until
    if days == 0:
        return None
    today = now().replace(hour=0, minute=0, second=0, microsecond=0)
    return today + timedelta(days=days + 1)

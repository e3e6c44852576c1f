"""Which message a piece of feedback is about, and what follows from it."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db.models import F, QuerySet

from common.addresses import Address, address_hash
from delivery.bounces import FOR_GOOD, RETURNED, BounceClass, classify_reply, not_hard
from delivery.models import Attempt, Message, Provider
from suppression.states import ALL, MARKETING, SuppressionReason
from webhooks.kinds import Feedback, FeedbackKind

MOMENTS = {
    FeedbackKind.DELIVERED: "delivered_at",
    FeedbackKind.OPENED: "opened_at",
    FeedbackKind.CLICKED: "clicked_at",
    FeedbackKind.REJECTED: "rejected_at",
    FeedbackKind.BOUNCED: "bounced_at",
    FeedbackKind.COMPLAINED: "complained_at",
    FeedbackKind.UNSUBSCRIBED: "unsubscribed_at",
}

ARRIVED = frozenset({FeedbackKind.DELIVERED, FeedbackKind.OPENED, FeedbackKind.CLICKED})
"""The mailbox took it."""

# Nobody can deliver, put off, open, bounce or complain about a mail the provider did not take. An
# unsubscribe is no proof: its link also stands in the preview of a mail that never left.
_PROOFS = frozenset(MOMENTS) - {FeedbackKind.UNSUBSCRIBED} | {
    FeedbackKind.ACCEPTED,
    FeedbackKind.DEFERRED,
}


@dataclass(frozen=True, slots=True)
class Match:
    """A piece of feedback and the message it is about, if we know it."""

    feedback: Feedback
    message: Message | None
    bounce_class: BounceClass | None
    """Why it came back or was put off."""
    was_given: bool = False
    """Whether the address that is named is one the message was handed over to before."""

    @property
    def address(self) -> Address | None:
        """The address the mail was sent to, which the contact may have changed since.

        Where it was handed over more than once, the one that is named may be an earlier one. Any
        other is not believed: what a bounce names, the server that returned it has written.
        """
        message, named = self.message, self.feedback.address
        if message is None:
            return named
        # What is turned away in the hand-over itself names the address from our own records.
        if named and (self.was_given or self.feedback.kind is FeedbackKind.REFUSED):
            return named
        if not message.email_normalized:
            return None
        return Address(message.email, message.email_normalized)

    @property
    def is_forgotten(self) -> bool:
        """Whether it is about somebody who was erased: of them nothing is written down any more
        but what became of the mail."""
        return self.message is not None and self.message.contact.erased_at is not None

    @property
    def is_returned(self) -> bool:
        """Whether it tells that the mail did not arrive, or not yet."""
        return self.bounce_class in RETURNED

    @property
    def is_proof(self) -> bool:
        """Whether it shows that the provider took the mail."""
        return self.feedback.kind in _PROOFS

    @property
    def moment(self) -> str:
        """The column of the message that this feedback tells, or nothing."""
        kind = self.feedback.kind
        if kind is FeedbackKind.BOUNCED and self.bounce_class not in FOR_GOOD:
            return ""
        return MOMENTS.get(kind, "")

    @property
    def suppression(self) -> tuple[str, SuppressionReason] | None:
        """Scope and reason to suppress the address for, if any."""
        match self.feedback.kind:
            case FeedbackKind.BOUNCED | FeedbackKind.REFUSED if self.bounce_class in FOR_GOOD:
                return ALL, SuppressionReason.HARD_BOUNCE
            case FeedbackKind.COMPLAINED:
                return MARKETING, SuppressionReason.COMPLAINT
            case FeedbackKind.UNSUBSCRIBED:
                return self.feedback.scope, SuppressionReason.UNSUBSCRIBE
        return None

    @property
    def objects(self) -> bool:
        """Whether a person wants no marketing mail at all any more, at whatever address."""
        told = self.feedback
        is_unsubscribe = told.kind is FeedbackKind.UNSUBSCRIBED and told.scope in (MARKETING, ALL)
        return is_unsubscribe or told.kind is FeedbackKind.COMPLAINED

    @property
    def withdraws(self) -> bool:
        """Whether the consent to the message's topic is gone: taken back, or its giver is."""
        person_said = self.feedback.kind in (FeedbackKind.COMPLAINED, FeedbackKind.UNSUBSCRIBED)
        somebody_else = self.bounce_class is BounceClass.OWNER_CHANGED
        return (
            (person_said or somebody_else)
            and self.message is not None
            and self.message.topic is not None
            and not self.is_forgotten
        )


def match(feedback: Sequence[Feedback]) -> list[Match]:
    """Each piece with its message. Four queries at most."""
    by_uuid = _find_by_uuid(feedback)
    strangers = [item for item in feedback if item.message_uuid not in by_uuid and item.esp_id]
    by_esp_id = _find_by_esp_id(strangers)
    candidates = [
        [by_uuid[item.message_uuid]]
        if item.message_uuid in by_uuid
        else by_esp_id.get((item.source, item.esp_id), [])
        for item in feedback
    ]
    given = _given(zip(feedback, candidates, strict=True))
    return [
        _match(item, messages, item.message_uuid in by_uuid, given)
        for item, messages in zip(feedback, candidates, strict=True)
    ]


def _match(
    feedback: Feedback,
    candidates: Sequence[Message],
    is_ours: bool,
    given: Mapping[UUID, Collection[bytes]],
) -> Match:
    """An id of ours is proof enough. One of the provider's is a number that another of its servers
    or accounts may have given as well: the address has to agree, and for one message only."""
    named = feedback.address
    agreeing = [
        message
        for message in candidates
        if is_ours or _is_address_of(named, message) or _was_given(message, named, given)
    ]
    message = agreeing[0] if len(agreeing) == 1 else None
    was_given = message is not None and _was_given(message, named, given)
    return Match(feedback, message, _bounce_class(feedback), was_given)


def _is_address_of(named: Address | None, message: Message) -> bool:
    return named is not None and named.normalized == message.email_normalized


def _was_given(
    message: Message, named: Address | None, given: Mapping[UUID, Collection[bytes]]
) -> bool:
    if named is None or _is_address_of(named, message):
        return False
    return address_hash(named.normalized) in given[message.pk]


def _given(
    pairs: Iterable[tuple[Feedback, Iterable[Message]]],
) -> dict[UUID, set[bytes]]:
    """The hashes of the addresses that messages were handed over to, for those of which another
    one is named than they have. One query, and mostly none."""
    doubtful = {
        message.pk
        for feedback, messages in pairs
        for message in messages
        if feedback.address is not None and not _is_address_of(feedback.address, message)
    }
    found: dict[UUID, set[bytes]] = {pk: set() for pk in doubtful}
    if doubtful:
        rows = Attempt.objects.filter(message__in=doubtful, address_hash__isnull=False)
        for message_id, digest in rows.values_list("message", "address_hash"):
            found[message_id].add(bytes(digest or b""))
    return found


def _bounce_class(feedback: Feedback) -> BounceClass | None:
    # For what is put off providers have no types: their words are read.
    if feedback.kind is FeedbackKind.DEFERRED and feedback.bounce_class is None:
        return not_hard(classify_reply(feedback.detail))
    return feedback.bounce_class


def _find_by_uuid(feedback: Iterable[Feedback]) -> dict[UUID | None, Message]:
    wanted = {item.message_uuid for item in feedback if item.message_uuid is not None}
    if not wanted:
        return {}
    return {message.pk: message for message in _messages().filter(pk__in=wanted)}


def _find_by_esp_id(feedback: Sequence[Feedback]) -> dict[tuple[str, str], list[Message]]:
    """(source, the provider's id) → the messages that went out by that provider, or by the one the
    environment configures, and have got that id."""
    if not feedback:
        return {}
    wanted = {item.esp_id for item in feedback}
    backends = {Provider.Backend.CONFIGURED, *(item.source for item in feedback)}
    providers = Provider.objects.filter(backend__in=backends)
    found = _messages().filter(provider__in=providers, esp_id__in=wanted).exclude(esp_id="")
    by_backend: dict[tuple[str, str], list[Message]] = defaultdict(list)
    # Two reads, not one with OR, which no index would serve.
    for message in found.annotate(backend=F("provider__backend")):
        by_backend[message.backend, message.esp_id].append(message)
    return {
        (source, esp_id): [
            *by_backend.get((source, esp_id), ()),
            *by_backend.get((Provider.Backend.CONFIGURED, esp_id), ()),
        ]
        for source, esp_id in {(item.source, item.esp_id) for item in feedback}
    }


# What is acted by, and what is told onwards. Loading it all would take longer than the rest.
_NEEDED = (
    *("id", "email", "email_normalized", "stream", "depth", "contact_id", "topic_id"),
    *("origin_campaign", "origin_step", "esp_id"),
    *("contact__user_id", "contact__email", "contact__email_normalized", "contact__do_not_share"),
    "contact__may_track",
    "contact__erased_at",
    *("topic__key",),
)


def _messages() -> QuerySet[Message]:
    return Message.objects.select_related("contact", "topic").only(*_NEEDED)

"""Which message a piece of feedback is about, and what follows from it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db.models import F, QuerySet

from common.addresses import Address
from delivery.bounces import FOR_GOOD, RETURNED, BounceClass, classify_reply, not_hard
from delivery.models import Message, Provider
from suppression.states import ALL, MARKETING, SuppressionReason
from webhooks.kinds import Feedback, FeedbackKind

MOMENTS = {
    FeedbackKind.DELIVERED: "delivered_at",
    FeedbackKind.OPENED: "opened_at",
    FeedbackKind.CLICKED: "clicked_at",
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

    @property
    def address(self) -> Address | None:
        """The address the mail was sent to, which the contact may have changed since. Where it was
        handed over more than once, the one that is named may be an earlier one."""
        message, named = self.message, self.feedback.address
        if message is None or not message.email_normalized:
            return named
        if named and (self.feedback.kind is FeedbackKind.REFUSED or message.attempts > 1):
            return named
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
    """Each piece with its message. Three queries at most."""
    by_uuid = _find_by_uuid(feedback)
    strangers = [item for item in feedback if item.message_uuid not in by_uuid and item.esp_id]
    by_esp_id = _find_by_esp_id(strangers)
    return [
        Match(
            item,
            by_uuid.get(item.message_uuid)
            or by_esp_id.get((item.source, item.esp_id))
            or by_esp_id.get((Provider.Backend.CONFIGURED, item.esp_id)),
            _bounce_class(item),
        )
        for item in feedback
    ]


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


def _find_by_esp_id(feedback: Sequence[Feedback]) -> dict[tuple[str, str], Message]:
    if not feedback:
        return {}
    wanted = {item.esp_id for item in feedback}
    backends = {Provider.Backend.CONFIGURED, *(item.source for item in feedback)}
    providers = Provider.objects.filter(backend__in=backends)
    found = _messages().filter(provider__in=providers, esp_id__in=wanted).exclude(esp_id="")
    # Two reads, not one with OR, which no index would serve.
    rows = found.annotate(backend=F("provider__backend"))
    return {(message.backend, message.esp_id): message for message in rows}


# What is acted by, and what is told onwards. Loading it all would take longer than the rest.
_NEEDED = (
    *("id", "email", "email_normalized", "stream", "attempts", "depth", "contact_id", "topic_id"),
    *("origin_campaign", "origin_step", "esp_id"),
    *("contact__user_id", "contact__email", "contact__email_normalized", "contact__do_not_share"),
    "contact__erased_at",
    *("topic__key",),
)


def _messages() -> QuerySet[Message]:
    return Message.objects.select_related("contact", "topic").only(*_NEEDED)

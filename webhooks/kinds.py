"""The vocabulary of feedback: what can happen to a mail, whoever tells us."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from common.addresses import Address
from delivery.bounces import BounceClass
from suppression.states import MARKETING

PREFIX = "email."
"""Of the types under which it is told onwards."""


class FeedbackKind(StrEnum):
    """What happened to a mail, in one vocabulary for all providers."""

    ACCEPTED = "accepted"
    """The provider has it, and says no more."""
    DELIVERED = "delivered"
    OPENED = "opened"
    CLICKED = "clicked"
    DEFERRED = "deferred"
    """Not delivered yet; the provider goes on trying."""
    REFUSED = "refused"
    """Turned away in the hand-over itself: no provider has it."""
    REJECTED = "rejected"
    """The provider took it, looked at it and did not send it."""
    BOUNCED = "bounced"
    COMPLAINED = "complained"
    UNSUBSCRIBED = "unsubscribed"
    OTHER = "other"
    """Known and of no consequence, or unknown."""


TYPES = tuple(
    f"{PREFIX}{kind}"
    for kind in (
        FeedbackKind.DELIVERED,
        FeedbackKind.OPENED,
        FeedbackKind.CLICKED,
        FeedbackKind.BOUNCED,
        FeedbackKind.COMPLAINED,
        FeedbackKind.UNSUBSCRIBED,
    )
)
"""Everything that is told onwards."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """One thing that came back, whoever told us.

    The message is found by our own id, else by the provider's (`source` names the provider).
    `address` counts when no message is found: the mail's own recipient goes before it.
    """

    kind: FeedbackKind
    at: datetime
    source: str
    message_uuid: UUID | None = None
    esp_id: str = ""
    address: Address | None = None
    bounce_class: BounceClass | None = None
    scope: str = MARKETING
    """How far an unsubscribe reaches."""
    detail: str = ""
    known_at: datetime | None = None
    """When it was known at the latest, where that may be a while ago: what the person has asked
    for since is not undone."""
    is_repeated: bool = False
    """It has been acted on before, as far as it could be without its message."""

    @property
    def names_a_message(self) -> bool:
        """Whether there is something to find the message by."""
        return self.message_uuid is not None or bool(self.esp_id)

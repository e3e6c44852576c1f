"""What a mail in the bounce mailbox says, apart from which message it is about."""

from dataclasses import dataclass

from delivery.bounces import BounceClass
from webhooks.kinds import FeedbackKind


@dataclass(frozen=True, slots=True)
class Told:
    """The meaning of a mail, and its words for it."""

    kind: FeedbackKind
    bounce_class: BounceClass | None = None
    detail: str = ""

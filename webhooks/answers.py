"""What receiving servers said in the hand-over itself, acted on like everything that comes back."""

from common.addresses import Address
from delivery.bounces import BounceClass
from delivery.models import Bounce
from webhooks.feedback import Feedback, FeedbackKind, apply_feedback

BATCH = 100


def apply_answers() -> bool:
    """Act on up to `BATCH` answers nobody has acted on yet; True if there may be more.

    Nothing is locked or claimed: whoever does the same at the same time does the same, and
    `apply_feedback` notes that it is done.
    """
    answers = list(Bounce.objects.filter(is_applied=False).order_by("pk")[:BATCH])
    apply_feedback(
        [
            Feedback(
                kind=FeedbackKind.REFUSED,
                at=answer.at,
                source=answer.source,
                message_uuid=answer.message_id,
                address=_refused(answer),
                bounce_class=BounceClass(answer.bounce_class),
                detail=answer.detail,
            )
            for answer in answers
        ]
    )
    return len(answers) == BATCH


def _refused(answer: Bounce) -> Address | None:
    """The address that was refused, which the message may have changed since."""
    if not answer.email_normalized:
        return None
    return Address(answer.email, answer.email_normalized)

"""What a recipient decides about being mailed."""

from common.clock import now
from delivery.models import Message
from webhooks.feedback import Feedback, FeedbackKind, apply_feedback


def unsubscribe(message: Message, scope: str, *, source: str) -> None:
    """Suppress the address this message was sent to, in this scope, and withdraw the consent to
    its topic. Idempotent; when this returns it is committed, and no hand-over whose transaction
    starts later ignores it."""
    apply_feedback(
        [
            Feedback(
                kind=FeedbackKind.UNSUBSCRIBED,
                at=now(),
                source=source,
                message_uuid=message.pk,
                scope=scope,
                detail=f"message {message.pk}",
            )
        ]
    )

"""What receiving servers said in the hand-over itself, acted on like everything that comes back."""

import logging
from collections.abc import Sequence
from datetime import timedelta

from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from common.addresses import Address
from common.outages import is_outage
from delivery.bounces import BounceClass
from delivery.models import Bounce
from webhooks.feedback import Feedback, FeedbackKind, apply_feedback

logger = logging.getLogger(__name__)

BATCH = 100

RETRY_AFTER = timedelta(hours=1)
"""Until one that could not be acted on is tried again, perhaps by a version that can."""


def apply_answers() -> bool:
    """Act on up to `BATCH` answers nobody has acted on yet; True if there may be more.

    Nothing is locked or claimed: whoever does the same at the same time does the same, and
    `apply_feedback` notes that it is done. One that cannot be acted on keeps no other from it.
    """
    answers = list(due_answers().order_by("pk")[:BATCH])
    try:
        _apply(answers)
    except Exception as error:
        if is_outage(error):  # that is no answer's fault
            raise
        for answer in answers:
            _apply_alone(answer)
    return len(answers) == BATCH


def due_answers() -> QuerySet[Bounce]:
    """The answers that wait to be acted on."""
    return Bounce.objects.filter(
        Q(retry_at__isnull=True) | Q(retry_at__lte=Now()), is_applied=False
    )


def _apply_alone(answer: Bounce) -> None:
    try:
        _apply([answer])
    except Exception as error:
        if is_outage(error):
            raise
        logger.exception("answer not applied", extra={"bounce": answer.pk})
        Bounce.objects.filter(pk=answer.pk, is_applied=False).update(retry_at=Now() + RETRY_AFTER)


def _apply(answers: Sequence[Bounce]) -> None:
    apply_feedback([_feedback(answer) for answer in answers])


def _feedback(answer: Bounce) -> Feedback:
    return Feedback(
        kind=FeedbackKind.REFUSED,
        at=answer.at,
        source=answer.source,
        message_uuid=answer.message_id,
        address=_refused(answer),
        bounce_class=BounceClass(answer.bounce_class),
        detail=answer.detail,
    )


def _refused(answer: Bounce) -> Address | None:
    """The address that was refused, which the message may have changed since."""
    if not answer.email_normalized:
        return None
    return Address(answer.email, answer.email_normalized)

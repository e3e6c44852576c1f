"""The feedback lane's drain, and the clock of the bounce mailbox."""

import logging

from celery import shared_task
from django.conf import settings

from common.bell import answer, ring
from webhooks.mailbox.account import MailboxError
from webhooks.mailbox.services import poll
from webhooks.services import drain

logger = logging.getLogger(__name__)

_BUDGET = 5.0


@shared_task(name="drain.feedback")
def drain_feedback() -> None:
    answer("feedback")
    if drain(budget=_BUDGET):
        ring("feedback")


@shared_task(name="webhooks.poll_bounces")
def poll_bounces() -> None:
    # The schedule is kept in the database, and may outlive the setting.
    if not settings.BOUNCE_MAILBOX_URL:
        return
    try:
        poll()
    except MailboxError as error:
        logger.warning("bounce mailbox not read", extra={"why": str(error)})

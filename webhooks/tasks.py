"""The drains of the feedback and the outgoing lane, the upkeep of their tables, and what the clock
has fetched."""

import logging

from celery import shared_task
from django.conf import settings

from common.bell import answer, ring
from webhooks.mailbox.account import MailboxError
from webhooks.mailbox.services import poll
from webhooks.outgoing.retention import purge_deliveries, renew_secrets
from webhooks.outgoing.sending import drain_deliveries
from webhooks.reconciliation.services import reconcile
from webhooks.retention import purge_receipts
from webhooks.services import drain

logger = logging.getLogger(__name__)

_BUDGET = 5.0
# The clock rings every minute. Providers take their time, so this is nothing for a prompt lane.
_RECONCILE_BUDGET = 40.0


@shared_task(name="drain.feedback")
def drain_feedback() -> None:
    answer("feedback")
    if drain(budget=_BUDGET):
        ring("feedback")


@shared_task(name="webhooks.purge")
def purge() -> None:
    purge_receipts()


@shared_task(name="drain.outgoing")
def drain_outgoing() -> None:
    answer("outgoing")
    if drain_deliveries(budget=_BUDGET):
        ring("outgoing")


@shared_task(name="webhooks.tidy_outgoing")
def tidy_outgoing() -> None:
    renew_secrets()
    purge_deliveries()


@shared_task(name="webhooks.reconcile")
def reconcile_task() -> None:
    reconcile(budget=_RECONCILE_BUDGET)


@shared_task(name="webhooks.poll_bounces")
def poll_bounces() -> None:
    # The schedule is kept in the database, and may outlive the setting.
    if not settings.BOUNCE_MAILBOX_URL:
        return
    try:
        poll()
    except MailboxError as error:
        logger.warning("bounce mailbox not read", extra={"why": str(error)})

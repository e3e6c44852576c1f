"""The feedback lane's drain, and its housekeeping."""

from celery import shared_task

from common.bell import answer, ring
from webhooks.retention import purge_receipts
from webhooks.services import drain

_BUDGET = 5.0


@shared_task(name="drain.feedback")
def drain_feedback() -> None:
    answer("feedback")
    if drain(budget=_BUDGET):
        ring("feedback")


@shared_task(name="webhooks.purge")
def purge() -> None:
    purge_receipts()

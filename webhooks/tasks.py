"""The feedback lane's drain, and the clock's adapter of reconciliation."""

from celery import shared_task

from common.bell import answer, ring
from webhooks.reconciliation.services import reconcile
from webhooks.services import drain

_BUDGET = 5.0
# The clock rings every minute. Providers take their time, so this is nothing for a prompt lane.
_RECONCILE_BUDGET = 40.0


@shared_task(name="drain.feedback")
def drain_feedback() -> None:
    answer("feedback")
    if drain(budget=_BUDGET):
        ring("feedback")


@shared_task(name="webhooks.reconcile")
def reconcile_task() -> None:
    reconcile(budget=_RECONCILE_BUDGET)

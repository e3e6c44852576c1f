"""Celery adapter of the sweep."""

from celery import shared_task

from common.bell import answer
from emailauto.sweep import sweep


@shared_task(name="emailauto.sweep")
def sweep_task() -> None:
    answer("maintenance")
    sweep()

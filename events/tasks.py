"""Celery adapter of the retention."""

from celery import shared_task

from events.retention import purge


@shared_task(name="events.purge")
def purge_task() -> None:
    purge()

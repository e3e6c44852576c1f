"""Celery adapter of erasures."""

from celery import shared_task

from contacts.dsar import continue_erasures


@shared_task(name="contacts.erase")
def erase_task() -> None:
    continue_erasures()

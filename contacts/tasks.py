"""Celery adapters of erasures and copies."""

from celery import shared_task

from contacts.copies import make_copies
from contacts.dsar import continue_erasures


@shared_task(name="contacts.erase")
def erase_task() -> None:
    continue_erasures()


@shared_task(name="contacts.copy")
def copy_task() -> None:
    make_copies()

"""Celery adapter of the mirror."""

from celery import shared_task

from suppression.mirror import sync_mirror


@shared_task(name="suppression.sync_mirror")
def sync_mirror_task() -> None:
    sync_mirror()

"""The project: settings, configuration, Celery application, URLs and the commands that run it."""

from emailauto.celery import app as celery_app

__all__ = ["celery_app"]

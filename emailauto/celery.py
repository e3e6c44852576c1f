"""The Celery application.

Tasks are drains: a message on a queue says "this lane has work", never which work. What is due
stands in PostgreSQL, so a lost or doubled message changes latency only.
"""

import gc
import os
from typing import Any

from celery import Celery, signals
from django.db import close_old_connections

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "emailauto.settings")
# Celery would run the system checks at the start of a worker, with every page of the admin and the
# API in its memory from then on, and tell nobody what they found.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")

app = Celery("emailauto")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@signals.task_prerun.connect
def _reconnect(**_: Any) -> None:
    # CELERY_DB_REUSE_MAX keeps connections over many tasks, dead ones as well.
    close_old_connections()


@signals.worker_before_create_process.connect
def _leave_the_start_alone(**_: Any) -> None:
    # What was imported stays. Without this the collector looks through all of it again and again
    # while a batch is made, which was a quarter of the engine's time. Before the fork, because to
    # look at an object is to write to its page, of which each process would get its own copy.
    gc.collect()
    gc.freeze()

"""The Celery application.

Tasks are drains: a message on a queue says "this lane has work", never which work. What is due
stands in PostgreSQL, so a lost or doubled message changes latency only.
"""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "emailauto.settings")

app = Celery("emailauto")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

"""The Celery application: `celery -A bench.baselines.bare.app worker`."""

import os

from celery import Celery

os.environ["DJANGO_SETTINGS_MODULE"] = "bench.baselines.bare.settings"

app = Celery("bare")
app.config_from_object("django.conf:settings", namespace="CELERY")

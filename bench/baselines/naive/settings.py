"""The smallest project that sends a receipt for each order, at its fastest: connections to the
database stay open, templates are parsed once, no results are kept.

Anymail reaches no SMTP server; where there is one, Django's own backend sends its messages.
"""

import os
from pathlib import Path

import environ
import msgspec

_wording = msgspec.json.decode(Path(os.environ["WORDING"]).read_bytes())

SECRET_KEY = os.environ["SECRET_KEY"]
INSTALLED_APPS = ["anymail", "bench.baselines.naive"]
DATABASES = {"default": {**environ.Env().db_url("DATABASE_URL"), "CONN_MAX_AGE": None}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
EMAIL_HOST = "127.0.0.1"
EMAIL_PORT = int(os.environ["SINK_PORT"])
DEFAULT_FROM_EMAIL = _wording["from_email"]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "loaders": [
                (
                    "django.template.loaders.cached.Loader",
                    [("django.template.loaders.locmem.Loader", _wording["templates"])],
                )
            ]
        },
    }
]
CELERY_BROKER_URL = os.environ["CELERY_BROKER_URL"]
CELERY_TASK_DEFAULT_QUEUE = os.environ.get("QUEUE", "celery")
CELERY_TASK_IGNORE_RESULT = True
# Or each task would open its connection anew.
CELERY_DB_REUSE_MAX = 1_000
LOGGING_CONFIG = None

"""The smallest project that sends, at its fastest.

Batches of 100, its default, fork their processes and open their connections a hundred times as
often as these.
"""

import os

import environ

SECRET_KEY = os.environ["SECRET_KEY"]
INSTALLED_APPS = ["post_office"]
DATABASES = {"default": {**environ.Env().db_url("DATABASE_URL"), "CONN_MAX_AGE": None}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
EMAIL_HOST = "127.0.0.1"
EMAIL_PORT = int(os.environ["SINK_PORT"])
POST_OFFICE = {
    "BATCH_SIZE": 5_000,
    "THREADS_PER_PROCESS": 8,
}
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]
LOGGING_CONFIG = None

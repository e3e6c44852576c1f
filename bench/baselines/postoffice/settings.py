"""The smallest project that sends, at its fastest.

Tried at 10,000 mails: batches of 100 (its default), 1,000 and 5,000, because each of them forks its
processes and opens its connections anew; and 4, 8 and 16 threads.
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
    "BATCH_SIZE": int(os.environ.get("POST_OFFICE_BATCH", "5000")),
    "THREADS_PER_PROCESS": int(os.environ.get("POST_OFFICE_THREADS", "8")),
}
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]
LOGGING_CONFIG = None

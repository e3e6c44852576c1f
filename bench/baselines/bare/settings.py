"""A database and a broker, no apps."""

import os

import environ

SECRET_KEY = os.environ["SECRET_KEY"]
INSTALLED_APPS: list[str] = []
DATABASES = {"default": environ.Env().db_url("DATABASE_URL")}
USE_TZ = True
CELERY_BROKER_URL = os.environ["CELERY_BROKER_URL"]
LOGGING_CONFIG = None

"""Every setting, typed, read from the environment.

Where a value comes from, first one wins: the process environment, `.env` in the checkout, and
`var/embedded.env`, which the supervisor of `make run` writes when it started the servers. An
empty environment is the embedded default; a half-set one stops with the fix.
"""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

from emailauto.config import load_config
from emailauto.unfold import UNFOLD  # noqa: F401 - the admin's look, a setting like any other

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = Path(os.environ.get("EMAILAUTO_VAR") or BASE_DIR / "var")

env = environ.Env()
env.read_env(BASE_DIR / ".env")
if not env("DATABASE_URL", default=""):
    env.read_env(VAR_DIR / "embedded.env")

EMAILAUTO_CONFIG = Path(
    env("EMAILAUTO_CONFIG", default="") or BASE_DIR / "email-automation-config.yaml"
)
EMAILAUTO = load_config(EMAILAUTO_CONFIG)

# --- Identity and secrets -----------------------------------------------------------------

DEBUG = env.bool("DEBUG", default=False)

# Without a database there is nothing to protect yet: `manage.py up` runs before the secrets of
# the embedded default exist. With one, a missing key is an error, never a default.
_has_database = bool(env("DATABASE_URL", default=""))


def _secret(name: str) -> str:
    value: str = env(name, default="")
    if value:
        return value
    if _has_database:
        raise ImproperlyConfigured(
            f"DATABASE_URL is set, {name} is not. Set it to a long random value "
            "(python -c 'import secrets; print(secrets.token_urlsafe(48))'), "
            "or unset DATABASE_URL and start the embedded services with `make run`."
        )
    return "no-services-no-secrets-" + name.lower()


def _entries(name: str) -> list[str]:
    """What stands between the commas, without the spaces people put there."""
    return [entry.strip() for entry in env.list(name, default=[]) if entry.strip()]


SECRET_KEY = _secret("SECRET_KEY")
SECRET_KEY_FALLBACKS: list[str] = env.list("SECRET_KEY_FALLBACKS", default=[])
# Keys the hashes by which suppressed addresses are found again. It can never be rotated without
# losing them, hence apart from SECRET_KEY.
ADDRESS_HASH_KEY = _secret("ADDRESS_HASH_KEY")
# `user:password` of HTTP Basic on /webhooks/…, from which each provider's own follows; several,
# comma-separated, while rotating. Empty = the webhooks of providers that do not sign are refused.
WEBHOOK_SECRET: list[str] = env.list("WEBHOOK_SECRET", default=[])
# By what the providers that sign their calls are recognised; see docs/webhooks.md. Lists for the
# same reason, and empty means the same, for one provider.
SES_TOPIC_ARNS = _entries("SES_TOPIC_ARNS")
SENDGRID_WEBHOOK_PUBLIC_KEY = _entries("SENDGRID_WEBHOOK_PUBLIC_KEY")
MAILGUN_WEBHOOK_SIGNING_KEY = _entries("MAILGUN_WEBHOOK_SIGNING_KEY")
RESEND_WEBHOOK_SECRET = _entries("RESEND_WEBHOOK_SECRET")
MAILERSEND_WEBHOOK_SECRET = _entries("MAILERSEND_WEBHOOK_SECRET")
POSTAL_WEBHOOK_KEY = _entries("POSTAL_WEBHOOK_KEY")
# Which hosts, addresses and networks of the own network outgoing webhooks may reach, and through
# which proxy all others are reached.
OUTGOING_ALLOWED_HOSTS = _entries("OUTGOING_ALLOWED_HOSTS")
OUTGOING_PROXY: str = env("OUTGOING_PROXY", default="") or env("HTTPS_PROXY", default="")

# Links in mails are built from this and never from a request's Host header.
PUBLIC_URL: str = env("PUBLIC_URL", default="http://127.0.0.1:8000").rstrip("/")
_public = urlsplit(PUBLIC_URL)
# Where tracked links of mails lead: a name of its own that points here, if its operator has one.
TRACKING_URL: str = env("TRACKING_URL", default="").rstrip("/") or PUBLIC_URL
# The loopback names are for health checks from the same machine or container, the public ones are
# those of the recipients' pages and of tracked links.
ALLOWED_HOSTS: list[str] = [
    *env.list("ALLOWED_HOSTS", default=[]),
    _public.hostname or "",
    urlsplit(TRACKING_URL).hostname or "",
    *("127.0.0.1", "localhost", "[::1]"),
]
CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", default=[PUBLIC_URL])

# --- Services -----------------------------------------------------------------------------

DATABASES: dict[str, Any] = {
    "default": {
        **env.db_url("DATABASE_URL", default="postgres://emailauto@127.0.0.1:1/emailauto"),
        "CONN_MAX_AGE": 300,
        "CONN_HEALTH_CHECKS": True,
    }
}
DATABASES["default"].setdefault("OPTIONS", {}).update(
    connect_timeout=5,
    options="-c lock_timeout=10s -c statement_timeout=60s "
    "-c idle_in_transaction_session_timeout=60s -c timezone=UTC",
)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL: str = env("REDIS_URL", default="redis://127.0.0.1:1/0")

CELERY_BROKER_URL: str = env("CELERY_BROKER_URL", default="") or REDIS_URL
CELERY_TASK_DEFAULT_QUEUE = "maintenance"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
# A drain may be run twice and may be lost; what matters is that a crash is not a hot loop.
CELERY_TASK_ACKS_LATE = False
# Far beyond what a polite server can make a hand-over last; whoever reaches it hangs.
CELERY_TASK_TIME_LIMIT = 600
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 20
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_WORKER_MAX_MEMORY_PER_CHILD = 400_000  # KiB
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_CONNECTION_TIMEOUT = 1
CELERY_BROKER_TRANSPORT_OPTIONS = (
    {"visibility_timeout": 600, "socket_timeout": 5, "socket_connect_timeout": 0.5}
    if CELERY_BROKER_URL.startswith(("redis", "valkey", "sentinel"))
    else {}
)
CELERY_DB_REUSE_MAX = 1000
CELERY_TIMEZONE = "UTC"

# What `manage.py consume` reads from; SQS is found by boto3's own variables.
KAFKA_BOOTSTRAP_SERVERS: str = env("KAFKA_BOOTSTRAP_SERVERS", default="")
KAFKA_GROUP_ID: str = env("KAFKA_GROUP_ID", default="emailauto")
# librdkafka's properties as a JSON object: {"security.protocol": "SASL_SSL", …}
KAFKA_OPTIONS: dict[str, Any] = env.json("KAFKA_OPTIONS", default={})
RABBITMQ_URL: str = env("RABBITMQ_URL", default="") or (
    CELERY_BROKER_URL if CELERY_BROKER_URL.startswith(("amqp", "pyamqp")) else ""
)

# --- The engine's clockwork ---------------------------------------------------------------

LEASE_SECONDS = env.int("LEASE_SECONDS", default=120)
# How old what a batch knows of providers, circuits and warm-ups may be. Switches are always asked.
ROUTING_CACHE_SECONDS = 1.0
SWEEP_SECONDS = env.float("SWEEP_SECONDS", default=5.0)
# How often the providers' own lists of bounces and complaints are read; 0: never.
RECONCILE_HOURS = env.float("RECONCILE_HOURS", default=24.0)
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
CELERY_BEAT_MAX_LOOP_INTERVAL = 5
CELERY_BEAT_SCHEDULE = {
    "sweep": {
        "task": "emailauto.sweep",
        "schedule": SWEEP_SECONDS,
        # A sweep that waited longer than its successor is of no use to anyone.
        "options": {"queue": "maintenance", "expires": max(2 * SWEEP_SECONDS, 10.0)},
    },
    "suppression-mirror": {
        "task": "suppression.sync_mirror",
        "schedule": float(EMAILAUTO.suppression.sync_interval),
        "options": {"queue": "maintenance", "expires": 60.0},
    },
    "reconcile": {
        "task": "webhooks.reconcile",
        "schedule": 60.0,
        "options": {"queue": "bulk", "expires": 60.0},
    },
    "purge-links": {
        "task": "delivery.purge_links",
        "schedule": 3600.0,
        "options": {"queue": "maintenance", "expires": 600.0},
    },
    "erasures": {
        "task": "contacts.erase",
        "schedule": 60.0,
        "options": {"queue": "bulk", "expires": 60.0},
    },
    "personal-copies": {
        "task": "contacts.copy",
        "schedule": 10.0,
        "options": {"queue": "bulk", "expires": 10.0},
    },
    "purge-events": {
        "task": "events.purge",
        "schedule": 3600.0,
        "options": {"queue": "maintenance", "expires": 600.0},
    },
    "purge-receipts": {
        "task": "webhooks.purge",
        "schedule": 3600.0,
        "options": {"queue": "maintenance", "expires": 600.0},
    },
    "tidy-outgoing": {
        "task": "webhooks.tidy_outgoing",
        "schedule": 3600.0,
        "options": {"queue": "maintenance", "expires": 600.0},
    },
}

# --- Mail ---------------------------------------------------------------------------------

# smtp://user:password@host:port, smtp+tls://…; overrides `provider` of the config file.
EMAIL_URL: str = env("EMAIL_URL", default="")
# Whether mail goes into the sandbox inbox when nothing else is set up. `make run` says yes; a
# deployment that forgot its key must not look as if it sent.
SANDBOX_BY_DEFAULT = env.bool("SANDBOX_BY_DEFAULT", default=False)
DEFAULT_FROM_EMAIL: str = env("DEFAULT_FROM_EMAIL", default="shop@example.com")
EMAIL_TIMEOUT = 30
# The address that mail over SMTP comes back to, one for each message by a token behind a plus
# sign; the address in List-Unsubscribe; and the mailbox that both end up in.
BOUNCE_ADDRESS: str = env("BOUNCE_ADDRESS", default="").strip()
UNSUBSCRIBE_ADDRESS: str = env("UNSUBSCRIBE_ADDRESS", default="").strip()
# imaps://user:password@host:993/INBOX, or imap+tls:// for STARTTLS.
BOUNCE_MAILBOX_URL: str = env("BOUNCE_MAILBOX_URL", default="")
# What becomes of a mail there once it is kept here: `move:<folder>` or `delete`.
BOUNCE_MAILBOX_AFTER: str = env("BOUNCE_MAILBOX_AFTER", default="") or "move:Processed"
BOUNCE_MAILBOX_SECONDS = env.float("BOUNCE_MAILBOX_SECONDS", default=60.0)
if BOUNCE_MAILBOX_URL:
    CELERY_BEAT_SCHEDULE["bounce-mailbox"] = {
        "task": "webhooks.poll_bounces",
        "schedule": BOUNCE_MAILBOX_SECONDS,
        # Mail servers take their time, and not that of the sweep.
        "options": {"queue": "bulk", "expires": max(BOUNCE_MAILBOX_SECONDS, 10.0)},
    }
ANYMAIL = {"REQUESTS_TIMEOUT": (5, 30)}

# --- Django -------------------------------------------------------------------------------

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "unfold.contrib.forms",
    "emailauto.admin_app.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_celery_beat",
    "anymail",
    "emailauto",
    "monitoring",
    "preferences",
    "webhooks",
    "campaigns",
    "delivery",
    "content",
    "contacts",
    "events",
    "suppression",
]

MIDDLEWARE = [
    "preferences.middleware.recipient_pages",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "emailauto.urls"
WSGI_APPLICATION = "emailauto.wsgi.application"
APPEND_SLASH = True

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        # The configured directory first: a file there replaces ours of the same name.
        "DIRS": [BASE_DIR / EMAILAUTO.templates.base_dir, BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = True
LOCALE_PATHS = [BASE_DIR / "locale"]
# What the recipients' pages can speak: those with a catalogue in locale/.
PAGE_LANGUAGES = ("en", "de", "es", "fr")
USE_TZ = True

STATIC_URL = "/static/"
# Where a deployment ran `collectstatic`; without it the files come from the packages.
STATIC_ROOT: str | None = env("STATIC_ROOT", default="") or None
WHITENOISE_USE_FINDERS = STATIC_ROOT is None

DATA_UPLOAD_MAX_MEMORY_SIZE = 5 * 1024 * 1024

# How long the intake believes what it read about keys and event types.
INTAKE_CACHE_SECONDS = 1.0

# --- HTTP security ------------------------------------------------------------------------

_https = _public.scheme == "https"
SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", default=_https)
# One-click unsubscribe (RFC 8058) must not be redirected.
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$", r"^u/"]
SECURE_HSTS_SECONDS = env.int("SECURE_HSTS_SECONDS", default=31_536_000 if _https else 0)
SECURE_HSTS_INCLUDE_SUBDOMAINS = _https
SECURE_HSTS_PRELOAD = _https
# Set only behind a proxy that overwrites the header; otherwise anyone can claim https.
if env.bool("BEHIND_TLS_PROXY", default=False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_SECURE = _https
CSRF_COOKIE_SECURE = _https
SESSION_COOKIE_AGE = 12 * 3600
X_FRAME_OPTIONS = "DENY"  # previews of mails answer for themselves
SECURE_REFERRER_POLICY = "same-origin"

# --- API ----------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["events.auth.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["events.auth.HasScope"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "common.api.exception_handler",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "emailauto",
    "DESCRIPTION": "Post events; read what became of them.",
    "VERSION": "0.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    # Two fields are called `state`: a message's, and what a subscription came to.
    "ENUM_NAME_OVERRIDES": {"MessageState": "delivery.states.MessageState"},
}

# --- Logging ------------------------------------------------------------------------------

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "emailauto.logs.LineFormatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": env("LOG_LEVEL", default="INFO")},
    "loggers": {
        # One line per drain and beat tick says nothing that the tables do not say better.
        "celery.app.trace": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
        "django.request": {"level": "ERROR"},
    },
}

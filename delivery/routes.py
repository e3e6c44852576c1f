"""From a provider row to a Django e-mail connection: backend, arguments, secrets from the
environment."""

import os
from dataclasses import dataclass, field
from typing import Any

import environ
from django.conf import settings
from django.core.mail import get_connection
from django.core.mail.backends.base import BaseEmailBackend

from delivery.models import Provider

SANDBOX = "delivery.backends.sandbox.SandboxBackend"
SMTP = "delivery.backends.smtp.SMTPBackend"


class RouteError(Exception):
    """The provider cannot be used as it is set up; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Route:
    """How to reach a provider and what it allows."""

    backend: str
    options: dict[str, Any] = field(default_factory=dict, repr=False)
    rate_limit: int = 100
    """Hand-overs per second, over all workers."""
    batch_size: int = 1
    """Messages per `send_messages` call; above one only where a call is all or nothing."""

    def connection(self) -> BaseEmailBackend:
        """A fresh, closed connection."""
        connection: BaseEmailBackend = get_connection(self.backend, **self.options)
        return connection


def route_of(provider: Provider) -> Route:
    """The route of a provider row; raises `RouteError` when its secret is missing."""
    limit = provider.rate_limit or settings.EMAILAUTO.provider.rate_limit
    if provider.backend == Provider.Backend.CONFIGURED:
        return _configured(limit)
    if provider.backend == Provider.Backend.SANDBOX:
        return _sandbox(limit)
    secret = os.environ.get(provider.secret_env, "") if provider.secret_env else ""
    if not secret:
        raise RouteError(f"the environment variable {provider.secret_env or '(unnamed)'} is empty")
    if provider.backend == Provider.Backend.SMTP:
        return _smtp(secret, limit)
    return _anymail(provider.backend, secret, provider.api_url, limit)


def configured_backend() -> str:
    """What "as configured" means in this process: `smtp`, a provider's name, `sandbox`, or
    `missing`: a deployment has to say so before it swallows its mail into the sandbox."""
    config = settings.EMAILAUTO.provider
    if settings.EMAIL_URL:
        return "smtp"
    if config.api_key_env and os.environ.get(config.api_key_env):
        return config.type
    return "sandbox" if config.type == "sandbox" or settings.SANDBOX_BY_DEFAULT else "missing"


def _configured(limit: int) -> Route:
    kind, config = configured_backend(), settings.EMAILAUTO.provider
    if kind == "smtp":
        return _smtp(settings.EMAIL_URL, limit)
    if kind == "sandbox":
        return _sandbox(limit)
    if kind == "missing":
        raise RouteError(f"neither EMAIL_URL nor {config.api_key_env or 'a key'} is set")
    return _anymail(kind, os.environ[config.api_key_env], config.api_url, limit)


def _sandbox(limit: int) -> Route:
    return Route(SANDBOX, rate_limit=max(limit, 1_000), batch_size=100)


def _smtp(url: str, limit: int) -> Route:
    try:
        parsed = environ.Env.email_url_config(url)
    except (KeyError, ValueError) as error:
        raise RouteError(
            "the SMTP URL is not of the form smtp[+tls|+ssl]://user:password@host:port"
        ) from error
    options = {
        "host": parsed["EMAIL_HOST"],
        "port": parsed["EMAIL_PORT"] or 25,
        "username": parsed["EMAIL_HOST_USER"] or "",
        "password": parsed["EMAIL_HOST_PASSWORD"] or "",
        "use_tls": bool(parsed.get("EMAIL_USE_TLS")),
        "use_ssl": bool(parsed.get("EMAIL_USE_SSL")),
    }
    return Route(SMTP, options, limit)


def _anymail(kind: str, secret: str, api_url: str, limit: int) -> Route:
    key = "server_token" if kind == "postmark" else "api_key"
    options = {key: secret}
    if api_url:
        options["api_url"] = api_url.rstrip("/") + "/"
    return Route(f"anymail.backends.{kind}.EmailBackend", options, limit)

"""From a provider row to a Django e-mail connection: backend, arguments, secrets from the
environment."""

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

import environ
from anymail.backends.base_requests import AnymailRequestsBackend
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.mail.backends.base import BaseEmailBackend
from django.utils.module_loading import import_string

from delivery.backends.http import GuardedBackend, guarded
from delivery.models import Message, Provider
from delivery.providers import TRAITS, Traits
from delivery.states import Stream

logger = logging.getLogger(__name__)

SANDBOX = "delivery.backends.sandbox.SandboxBackend"
SMTP = "delivery.backends.smtp.SMTPBackend"
IN_A_BATCH = "+batch"

_SHORTEST_SECRET = 6
_MOST_BACKSLASHES = 64
_BACKSLASHES = re.compile(rf"\\{{{_MOST_BACKSLASHES},}}")
_SES_HOST = re.compile(r"email\.([a-z0-9-]+)\.amazonaws\.com")


class RouteError(Exception):
    """The provider cannot be used as it is set up; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Route:
    """How to reach a provider and what it allows."""

    traits: Traits
    options: dict[str, Any] = field(default_factory=dict, repr=False)
    rate_limit: int = 100
    """Hand-overs per second, over all workers."""
    concurrency: int = 1
    """Hand-overs at once, in one process."""
    batch_size: int = 1
    """Messages per call."""
    found: set[str] = field(default_factory=set, repr=False, compare=False)
    """Secrets that its connections have found for themselves."""

    def redacted(self, text: str) -> str:
        """The text without our secrets, which some servers quote."""
        options = [value for value in self.options.values() if isinstance(value, str)]
        # Where a spelling may begin anywhere in a run of them, thousands would take seconds.
        text = _BACKSLASHES.sub(r"\\" * _MOST_BACKSLASHES, text)
        # The longest first: another may be part of it.
        for secret in sorted([*options, *self.found], key=len, reverse=True):
            if len(secret) >= _SHORTEST_SECRET:
                text = _spellings(secret).sub("***", text)
        return text

    @property
    def backend(self) -> str:
        """The import path of the Django e-mail backend."""
        return self.traits.backend

    @property
    def is_http(self) -> bool:
        """Whether `GuardedBackend` makes its calls."""
        kinds = (AnymailRequestsBackend, GuardedBackend)
        return issubclass(import_string(self.backend), kinds)

    def goes_alone(self, message: Message) -> bool:
        """Whether its call carries no other mail. Who waits for a receipt must not be left in
        doubt because of a neighbour, and a repeated call has to be the first one's twin."""
        is_many = self.batch_size > 1 and self.traits.batch is not None
        marketing = message.stream == Stream.MARKETING
        return not (is_many and marketing and message.replay_until is None)

    def way_of(self, message: Message) -> str:
        """What is remembered of the message's way: what a doubt means depends on it. The key of a
        call that carried many mails protects none of them on its own."""
        if self.goes_alone(message) or not self.traits.idempotent_seconds:
            return self.backend
        return f"{self.backend}{IN_A_BATCH}"

    def connection(self) -> BaseEmailBackend:
        """A fresh, closed connection."""
        backend = import_string(self.backend)
        if issubclass(backend, AnymailRequestsBackend):
            backend = guarded(backend)
        connection: BaseEmailBackend = backend(**self.options)
        if isinstance(connection, GuardedBackend):
            self.found.update(connection.secrets)
        return connection


@lru_cache(100)
def _spellings(secret: str) -> re.Pattern[str]:
    """The secret as it is, and as JSON may have it."""
    return re.compile("".join(_spelling(part) for part in re.findall(r"\\+|\s+|.", secret)))


def _spelling(part: str) -> str:
    # A text that is stored has one space for many.
    if part.isspace():
        return r"\s+"
    if part.startswith("\\"):
        return rf"(?:\\|(?i:u005c)){{1,{8 * len(part)}}}"
    return rf"(?:\\*+{re.escape(part)}|\\++(?i:u{ord(part):04x}))"


class Routes:
    """The routes to the providers of a batch, each found once."""

    def __init__(self, found: Mapping[int, Route | RouteError] | None = None) -> None:
        """`found`: by the id of the provider, what is known already."""
        self._found = dict(found or {})

    def of(self, provider: Provider) -> Route | RouteError:
        """The provider's route, or why there is none."""
        if provider.pk not in self._found:
            self._found[provider.pk] = self._find(provider)
        return self._found[provider.pk]

    @staticmethod
    def _find(provider: Provider) -> Route | RouteError:
        try:
            return route_of(provider)
        except RouteError as error:
            return error
        except Exception as error:
            # Whatever somebody has typed into the row is no message's fault.
            logger.exception("no route", extra={"provider": provider.key})
            return RouteError(f"cannot be used: {type(error).__name__}")


def route_of(provider: Provider) -> Route:
    """The route of a provider row; raises `RouteError` when it cannot be used as it is set up."""
    try:
        return _route_of(provider)
    except ValueError as error:
        raise RouteError(f"cannot be used: {type(error).__name__}") from error


def _route_of(provider: Provider) -> Route:
    limit = provider.rate_limit or settings.EMAILAUTO.provider.rate_limit
    if provider.backend == Provider.Backend.CONFIGURED:
        route = _configured(limit, provider.concurrency)
        if not route.traits.batch:
            return route
        return replace(route, batch_size=_batch_size(route.traits, provider.batch_size))
    if provider.backend == Provider.Backend.SANDBOX:
        return _sandbox(limit)
    names = [name.strip() for name in provider.secret_env.split(",") if name.strip()]
    if provider.backend == Provider.Backend.SMTP:
        (url,) = _secrets(names, 1)
        return _smtp(url, limit, provider.concurrency)
    route = _anymail(provider.backend, names, provider.api_url, limit, provider.concurrency)
    return replace(route, batch_size=_batch_size(route.traits, provider.batch_size))


def _batch_size(traits: Traits, wanted: int | None) -> int:
    if traits.batch is None:
        return 1
    return min(wanted or traits.batch.in_doubt, traits.batch.messages)


def configured_backend() -> str:
    """What "as configured" means in this process: `smtp`, a provider's name, `sandbox`, or
    `missing`: a deployment has to say so before it swallows its mail into the sandbox."""
    config = settings.EMAILAUTO.provider
    if settings.EMAIL_URL:
        return "smtp"
    names = [name.strip() for name in config.api_key_env.split(",") if name.strip()]
    if names and all(os.environ.get(name) for name in names):
        return config.type
    return "sandbox" if config.type == "sandbox" or settings.SANDBOX_BY_DEFAULT else "missing"


def _configured(limit: int, concurrency: int) -> Route:
    kind, config = configured_backend(), settings.EMAILAUTO.provider
    if kind == "smtp":
        return _smtp(settings.EMAIL_URL, limit, concurrency)
    if kind == "sandbox":
        return _sandbox(limit)
    if kind == "missing":
        raise RouteError(f"neither EMAIL_URL nor {config.api_key_env or 'a key'} is set")
    names = [name.strip() for name in config.api_key_env.split(",")]
    return _anymail(kind, names, config.api_url, limit, concurrency)


def _sandbox(limit: int) -> Route:
    return Route(Traits(SANDBOX), rate_limit=max(limit, 1_000), batch_size=100)


def _smtp(url: str, limit: int, concurrency: int) -> Route:
    try:
        parsed = environ.Env.email_url_config(url)
    except (KeyError, ValueError, ImproperlyConfigured) as error:
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
    return Route(Traits(SMTP), options, limit, concurrency)


def _anymail(kind: str, names: list[str], api_url: str, limit: int, concurrency: int) -> Route:
    traits = TRAITS.get(kind)
    if traits is None:
        raise RouteError(f"provider.type {kind!r} is none of {', '.join(sorted(TRAITS))}")
    if traits.needs_api_url and not api_url:
        raise RouteError(f"{kind} needs the URL of its server")
    options: dict[str, Any]
    if kind == "ses":
        options = _ses_options(names, api_url)
    else:
        options = dict(zip(traits.secrets, _secrets(names, len(traits.secrets)), strict=True))
        if api_url:
            options["api_url"] = api_url.rstrip("/") + "/"
    return Route(traits, options, limit, concurrency)


def _ses_options(names: list[str], api_url: str) -> dict[str, Any]:
    if find_spec("boto3") is None:
        raise RouteError("the library boto3 is not installed (requirements-brokers.txt)")
    # Without names botocore searches for itself: its own variables, or the machine's role.
    keys = _secrets(names, 2) if names else ["", ""]
    region = _SES_HOST.fullmatch(urlsplit(api_url).hostname or "")
    here = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return {
        "aws_access_key_id": keys[0],
        "aws_secret_access_key": keys[1],
        "region_name": region[1] if region else here,
        "endpoint_url": api_url,
    }


def _secrets(names: list[str], count: int) -> list[str]:
    if len(names) != count:
        raise RouteError(
            f"{count} environment variable{'s have' if count > 1 else ' has'} to be named, "
            f"not {len(names)}"
        )
    # A secret that was read from a file often ends with a line break.
    values = [os.environ.get(name, "").strip() for name in names]
    for name, value in zip(names, values, strict=True):
        if not value:
            raise RouteError(f"the environment variable {name} is empty")
        if not value.isascii() or not value.isprintable():
            raise RouteError(f"the environment variable {name} holds a character no secret has")
    return values

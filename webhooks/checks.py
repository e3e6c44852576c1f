"""System checks of the webhooks: which are closed although mail leaves that way, and which of their
secrets are of no use."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import OperationalError, ProgrammingError

from delivery.models import Provider
from delivery.routes import configured_backend
from webhooks.authenticity import is_pair, public_key
from webhooks.guard import is_host, is_proxy
from webhooks.providers import ADAPTERS
from webhooks.providers.resend import key_of
from webhooks.sns import is_arn

_HINT = "Set WEBHOOK_SECRET=user:password (several, comma-separated, while rotating)."
_WHERE = "docs/webhooks.md says where the provider shows it; several go with commas."

# What an entry of a setting has to be, and how that is said.
_FORMS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "SES_TOPIC_ARNS": (is_arn, "the ARN of an SNS topic"),
    "SENDGRID_WEBHOOK_PUBLIC_KEY": (public_key, "a public key in base64"),
    "POSTAL_WEBHOOK_KEY": (public_key, "a public key in base64"),
    "RESEND_WEBHOOK_SECRET": (key_of, "a secret that begins with whsec_"),
}


@register(Tags.security)
def check_webhook_secret(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """A secret that is no `user:password` lets nobody in."""
    if all(is_pair(entry) for entry in settings.WEBHOOK_SECRET):
        return []
    message = "An entry of WEBHOOK_SECRET is not of the form user:password."
    return [Error(message, hint=_HINT, id="webhooks.E001")]


@register(Tags.security)
def check_webhook_keys(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """A key that cannot be one would refuse every call of its provider."""
    return [
        Error(f"An entry of {name} is not {form}.", hint=_WHERE, id="webhooks.E002")
        for name, (is_usable, form) in _FORMS.items()
        if not all(is_usable(entry) for entry in getattr(settings, name))
    ]


@register(Tags.security)
def check_provider_in_use(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """The default provider's webhooks have to be open, or its bounces come back to nobody.

    Only a warning: the secrets of some are shown when the webhook is set up, which needs a server
    that runs. `check --deploy` takes it for the error it is by then.
    """
    return [
        Warning(text, hint=_WHERE, id="webhooks.W002") for text in _closed({configured_backend()})
    ]


@register(Tags.database)
def check_other_providers(
    app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """So have those of the providers that are set up in the admin: `check --database default`, and
    each `migrate`."""
    backends = _backends_of_rows(databases) - {configured_backend()}
    return [Warning(text, hint=_WHERE, id="webhooks.W004") for text in _closed(backends)]


@register(Tags.security, deploy=True)
def check_webhooks_before_deployment(
    app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """In production a provider in use whose webhooks are closed is an error."""
    backends = {configured_backend(), *_backends_of_rows(databases)}
    return [Error(text, hint=_WHERE, id="webhooks.E009") for text in _closed(backends)]


def _backends_of_rows(databases: Sequence[str] | None) -> set[str]:
    """Of the active providers in the database, if that may be asked and has the table yet."""
    if not databases:
        return set()
    try:
        return set(Provider.objects.filter(is_active=True).values_list("backend", flat=True))
    except (OperationalError, ProgrammingError):
        return set()


def _closed(backends: set[str]) -> list[str]:
    """A sentence for each of them whose webhooks are closed."""
    told = []
    for backend in sorted(backends & ADAPTERS.keys()):
        names = [name for name in ADAPTERS[backend].settings if not getattr(settings, name)]
        if names:
            told.append(
                f"Mail leaves through {backend} and {' and '.join(names)} is empty, so its"
                " webhooks are closed: no bounce or complaint arrives."
            )
    return told


@register(Tags.security)
def check_way_out(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """What the guard would never match, or never reach, opens or closes nothing it was meant to."""
    messages: list[CheckMessage] = []
    if not all(is_host(entry) for entry in settings.OUTGOING_ALLOWED_HOSTS):
        said = "An entry of OUTGOING_ALLOWED_HOSTS is no host name, address or network."
        messages.append(Error(said, hint="Without scheme and port.", id="webhooks.E003"))
    if settings.OUTGOING_PROXY and not is_proxy(settings.OUTGOING_PROXY):
        said = "OUTGOING_PROXY, or HTTPS_PROXY in its place, is not of the form http://host:port."
        messages.append(Error(said, id="webhooks.E004"))
    return messages

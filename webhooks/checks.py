"""System checks of the webhooks."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

from webhooks.adapters import usable_secrets

_HINT = "Set WEBHOOK_SECRET=user:password (several, comma-separated, while rotating)."


@register(Tags.security)
def check_webhook_secret(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """A secret that is no `user:password` is an error; none at all closes the webhooks."""
    if not settings.WEBHOOK_SECRET:
        message = "WEBHOOK_SECRET is empty, so webhooks are closed: no bounce or complaint arrives."
        return [Warning(message, hint=_HINT, id="webhooks.W001")]
    if len(usable_secrets()) < len(settings.WEBHOOK_SECRET):
        message = "An entry of WEBHOOK_SECRET is not of the form user:password."
        return [Error(message, hint=_HINT, id="webhooks.E001")]
    return []

"""System checks across rooms: what would run, but not as its operator believes.

`webhooks.checks` has its own. Ids are stable: E = refuse to deploy, W = look at it.
"""

import os
from typing import Any
from urllib.parse import urlsplit

import requests.adapters
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

from delivery.routes import configured_backend


@register(Tags.security, deploy=True)
def public_url_is_https(**_: Any) -> list[CheckMessage]:
    """RFC 8058 one-click links have to be https, and no link may be weaker than the page behind."""
    urls = (settings.PUBLIC_URL, settings.TRACKING_URL)
    if all(urlsplit(url).scheme == "https" for url in urls):
        return []
    hint = "PUBLIC_URL=https://mail.example.com, and TRACKING_URL likewise if it is set"
    return [Error("Links in mails are not https.", hint=hint, id="emailauto.E001")]


@register(Tags.security, deploy=True)
def hash_key_is_its_own(**_: Any) -> list[CheckMessage]:
    """Rotating SECRET_KEY must not lose the suppressed addresses."""
    if settings.ADDRESS_HASH_KEY != settings.SECRET_KEY:
        return []
    return [
        Error(
            "ADDRESS_HASH_KEY equals SECRET_KEY, so rotating one would lose every suppression.",
            hint="Give ADDRESS_HASH_KEY a value of its own and never change it.",
            id="emailauto.E002",
        )
    ]


@register(deploy=True)
def mail_leaves_this_machine(**_: Any) -> list[CheckMessage]:
    """A deployment whose provider is the sandbox sends nothing to anybody."""
    config = settings.EMAILAUTO.provider
    name = config.api_key_env or "(none named)"
    hint = f"Set {name}, the key of provider.type {config.type!r}, or EMAIL_URL."
    if configured_backend() == "missing":
        return [Error("The default provider has no key.", hint=hint, id="emailauto.E003")]
    if configured_backend() == "sandbox":
        message = "The default provider is the sandbox inbox: no mail leaves."
        return [Warning(message, hint=hint, id="emailauto.W003")]
    return []


@register()
def lease_outlasts_a_hand_over(**_: Any) -> list[CheckMessage]:
    """A lease shorter than a provider's timeout makes healthy workers look dead."""
    if settings.LEASE_SECONDS > settings.EMAIL_TIMEOUT:
        return []
    return [
        Warning(
            f"LEASE_SECONDS ({settings.LEASE_SECONDS}) is not longer than a hand-over may take "
            f"({settings.EMAIL_TIMEOUT} s): slow mails will be shown as unknown for a while.",
            id="emailauto.W004",
        )
    ]


@register()
def compliance_is_not_loosened_unnoticed(**_: Any) -> list[CheckMessage]:
    """Consent checks can be switched off; whoever does should read it on every start."""
    compliance = settings.EMAILAUTO.compliance
    if compliance.consent_check and compliance.gdpr:
        return []
    return [
        Warning(
            "Topics marked opt-in are mailed without consent on record "
            "(compliance.consent_check or compliance.gdpr is false).",
            id="emailauto.W005",
        )
    ]


@register()
def no_library_is_told_to_repeat_requests(**_: Any) -> list[CheckMessage]:
    """A repeated request is a second mail. These have no effect here; whoever sets them should
    not rely on it."""
    named = [name for name in ("AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE") if os.environ.get(name)]
    if requests.adapters.DEFAULT_RETRIES:
        named.append("requests.adapters.DEFAULT_RETRIES")
    if not named:
        return []
    return [
        Warning(
            f"{', '.join(named)} asks for repeated requests, which would double mail; "
            "hand-overs are never repeated by a library.",
            hint="Retries are set by provider.retry in the config file.",
            id="emailauto.W006",
        )
    ]

"""System checks of the bounce mailbox."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

from delivery.return_paths import LONGEST_LOCAL_PART, takes_a_token
from delivery.routes import configured_backend
from webhooks.mailbox.account import MailboxError, account_of, folder_after

_URL = "BOUNCE_MAILBOX_URL=imaps://user:password@imap.example.com:993/INBOX"
_ADDRESSES = ("BOUNCE_ADDRESS", "UNSUBSCRIBE_ADDRESS")
_ADDRESS_HINT = (
    f"BOUNCE_ADDRESS=bounces@mail.example.com, at most {LONGEST_LOCAL_PART} before the @"
)


@register(Tags.security)
def check_bounce_mailbox(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """An URL that leads nowhere, and a policy that is none, are errors. The URL is never shown."""
    if not settings.BOUNCE_MAILBOX_URL:
        return []
    try:
        account = account_of(settings.BOUNCE_MAILBOX_URL)
    except MailboxError as error:
        return [Error(f"BOUNCE_MAILBOX_URL: {error}.", hint=_URL, id="webhooks.E005")]
    try:
        folder_after(settings.BOUNCE_MAILBOX_AFTER, account)
    except MailboxError as error:
        hint = "BOUNCE_MAILBOX_AFTER=move:Processed, or delete"
        return [Error(f"BOUNCE_MAILBOX_AFTER: {error}.", hint=hint, id="webhooks.E006")]
    return []


@register(Tags.security)
def check_bounce_addresses(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """A token has to fit into them, and somebody has to read what they get."""
    found: list[CheckMessage] = [
        Error(f"{name} is no ASCII address with room.", hint=_ADDRESS_HINT, id="webhooks.E007")
        for name in _ADDRESSES
        if getattr(settings, name) and not takes_a_token(getattr(settings, name))
    ]
    if settings.UNSUBSCRIBE_ADDRESS and not settings.BOUNCE_MAILBOX_URL:
        message = "UNSUBSCRIBE_ADDRESS is offered to recipients and no mailbox is read."
        found.append(Error(message, hint=_URL, id="webhooks.E008"))
    return found


@register(Tags.security)
def check_bounces_come_back(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Mail over SMTP that bounces later has to reach the mailbox, and be read there."""
    missing = [n for n in ("BOUNCE_ADDRESS", "BOUNCE_MAILBOX_URL") if not getattr(settings, n)]
    if not missing or (len(missing) == 2 and configured_backend() != "smtp"):
        return []
    message = f"{' and '.join(missing)} is empty: bounces of mail over SMTP come back to nobody."
    hint = "docs/bounce-mailbox.md; a relay that tells its bounces otherwise needs neither."
    return [Warning(message, hint=hint, id="webhooks.W003")]

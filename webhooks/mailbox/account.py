"""Where the bounce mailbox is, by `BOUNCE_MAILBOX_URL` and `BOUNCE_MAILBOX_AFTER`."""

from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import SplitResult, unquote, urlsplit

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MOVE = "move:"
_FORM = "imaps://user:password@host:993/INBOX, special characters in the password as %XX"


class MailboxError(Exception):
    """The mailbox cannot be read; the text says why, in our words and without a name or secret."""


class Security(Enum):
    """How the connection is protected."""

    TLS = "imaps"
    STARTTLS = "imap+tls"
    NONE = "imap"


_PORTS = {Security.TLS: 993, Security.STARTTLS: 143, Security.NONE: 143}


@dataclass(frozen=True, slots=True)
class Account:
    """One folder on an IMAP server."""

    security: Security
    host: str
    port: int
    user: str = field(repr=False)
    password: str = field(repr=False)
    folder: str


def account_of(url: str) -> Account:
    """The account an URL names; raises `MailboxError` with what is wrong with it."""
    try:
        parts = urlsplit(url.strip())
        return _account(parts, Security(parts.scheme), parts.port)
    except ValueError:
        raise MailboxError(f"it is not of the form {_FORM}") from None


def _account(parts: SplitResult, security: Security, port: int | None) -> Account:
    if not (parts.hostname and parts.username and parts.password):
        raise MailboxError(f"it names no host, user or password; {_FORM}")
    if security is Security.NONE and parts.hostname not in _LOOPBACK:
        raise MailboxError("imap:// would show the password to everybody: imaps:// or imap+tls://")
    if parts.query or parts.fragment:
        raise MailboxError("? and # in it have to be written as %3F and %23")
    return Account(
        security=security,
        host=parts.hostname,
        port=port or _PORTS[security],
        user=unquote(parts.username),
        password=unquote(parts.password),
        folder=_folder(unquote(parts.path.removeprefix("/")) or "INBOX"),
    )


def folder_after(policy: str, account: Account) -> str | None:
    """The folder that mails are moved to once they are kept, or None to delete them; raises
    `MailboxError` for anything but `delete` and `move:<another folder>`."""
    if policy == "delete":
        return None
    folder = policy.removeprefix(_MOVE).strip()
    if not policy.startswith(_MOVE) or not folder:
        raise MailboxError("it is neither delete nor move:<folder>")
    if folder.lower() == account.folder.lower():
        raise MailboxError("mails cannot be moved to the folder they are in")
    return _folder(folder)


def _folder(name: str) -> str:
    # Others would have to be written in IMAP's own UTF-7.
    if not name.isascii() or not name.isprintable():
        raise MailboxError("a folder's name has to be of plain ASCII characters")
    return name

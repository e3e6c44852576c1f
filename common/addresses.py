"""E-mail addresses: parsed once at the border, compared by a normal form, hashed with a key."""

import hashlib
import hmac
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from django.conf import settings
from email_validator import EmailNotValidError, validate_email

MAX_LENGTH = 254


class InvalidAddress(ValueError):
    """The text is not one deliverable e-mail address."""


@dataclass(frozen=True, slots=True)
class Address:
    """An address as it is written to, and the form by which it is found again.

    `normalized` has an A-label domain and is lower-case throughout: no mailbox provider of size
    tells `Ada@` from `ada@`, and mailing a suppressed person twice is worse than the reverse.
    """

    email: str
    normalized: str


@lru_cache(maxsize=16_384)
def parse_address(text: str) -> Address:
    """The one address in `text`; raises `InvalidAddress` for anything else.

    Whitespace around it is ignored. Lists, display names, comments, control characters and
    domains without a dot are refused: a field holds one recipient, never two.
    """
    text = text.strip()
    if len(text) > MAX_LENGTH:
        raise InvalidAddress(f"longer than {MAX_LENGTH} characters")
    local, _, domain = text.rpartition("@")
    if not _PLAIN.fullmatch(local):
        return _validated(text)
    domain = _domain(domain)
    if len(local) + 1 + len(domain) > MAX_LENGTH:
        raise InvalidAddress(f"longer than {MAX_LENGTH} characters")
    return Address(f"{local}@{domain}", f"{local}@{domain}")


# A local part that is allowed everywhere and whose normal form is itself. Nearly all are like that,
# and what is left to check of such an address is its domain, which it shares with others.
_PLAIN = re.compile(r"(?=.{1,64}$)[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*", re.ASCII)


@lru_cache(maxsize=4_096)
def _domain(text: str) -> str:
    return _validated(f"a@{text}").email.partition("@")[2]


def _validated(text: str) -> Address:
    try:
        # Private domains (mail.internal, *.test) are fine on a self-hosted installation; .local,
        # .localhost and .invalid never are.
        valid = validate_email(
            text, check_deliverability=False, globally_deliverable=False, test_environment=True
        )
    except EmailNotValidError as error:
        raise InvalidAddress(str(error)) from None
    if "." not in valid.ascii_domain or valid.ascii_domain.startswith("["):
        raise InvalidAddress("the domain has no dot")
    domain = valid.ascii_domain.lower()
    # Lower-casing can decompose what normalising had composed.
    folded = unicodedata.normalize("NFC", valid.local_part.lower())
    return Address(f"{valid.local_part}@{domain}", f"{folded}@{domain}")


def address_hash(normalized: str) -> bytes:
    """32 bytes that stand for the address without revealing it.

    Keyed (HMAC-SHA256 with `ADDRESS_HASH_KEY`), because a plain hash of an address can be
    guessed back; it survives the erasure of the address itself.
    """
    key = settings.ADDRESS_HASH_KEY.encode()
    return hmac.digest(key, normalized.encode(), hashlib.sha256)


# Bounded and without "@" in either part: an unbounded one takes seconds over a long token.
_ANY_ADDRESS = re.compile(
    r"""(?:"[^"@]{1,62}"|[^\s<>()"'=,;:@%&\\]{1,64})"""
    r"""(?:@|%40|&\#0*64;|&\#x0*40;|&commat;|\\u0040)[^\s<>()"'=,;@]{1,255}""",
    re.IGNORECASE,
)


def mask_addresses(text: str) -> str:
    """The text with whatever looks like an address made unreadable."""
    return _ANY_ADDRESS.sub("***@***", text)


def mask(email: str) -> str:
    """The address as logs and error texts may show it: `a***@e***`."""
    local, _, domain = email.partition("@")
    return f"{local[:1]}***@{domain[:1]}***"

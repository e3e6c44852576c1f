"""Addresses of ours that name one message: where it comes back to, and where its reader writes to
be left alone.

`bounces+<token>@mail.example.com`. The token holds its own proof, so whoever writes to such an
address has seen the message, and nobody can make one for another message.
"""

import re
from collections.abc import Iterator
from itertools import islice
from uuid import UUID

from django.conf import settings

from common.addresses import InvalidAddress, parse_address
from common.signing import read_uuid_caseless, sign_uuid_caseless

RETURN_PATH = "return-path"
"""The signing purpose of tokens in MAIL FROM."""
UNSUBSCRIBE_MAIL = "unsubscribe-mail"
"""The signing purpose of tokens in the `mailto:` of List-Unsubscribe."""

LONGEST_LOCAL_PART = 64 - len("+") - 40
"""Of an address that a token is to be added to (RFC 5321 §4.5.3.1.1)."""

# Whatever a forwarder wraps around the address (SRS, BATV), the token is in one piece.
_TOKEN = re.compile(r"(?<![a-z0-9])[a-z2-7]{40}(?![a-z0-9])", re.IGNORECASE)
_MAX_CANDIDATES = 100


def return_path(uuid: UUID, sender: str) -> str:
    """The address of MAIL FROM: one for this message, or the sender's where none is set up."""
    return _tagged(settings.BOUNCE_ADDRESS, RETURN_PATH, uuid) or sender


def unsubscribe_address(uuid: UUID) -> str:
    """Where mail means that the recipient of this message wants no more; empty if not set up."""
    return _tagged(settings.UNSUBSCRIBE_ADDRESS, UNSUBSCRIBE_MAIL, uuid)


def uuids_in_addresses(purpose: str, text: str) -> Iterator[UUID]:
    """The messages that tokens of ours for this purpose name, wherever in the text. After a hundred
    that might be some it is given up."""
    candidates = islice(_TOKEN.finditer(text), _MAX_CANDIDATES)
    found = (read_uuid_caseless(purpose, match[0]) for match in candidates)
    return (uuid for uuid in found if uuid is not None)


def takes_a_token(address: str) -> bool:
    """Whether it is an ASCII address with room for a token."""
    try:
        parsed = parse_address(address)
    except InvalidAddress:
        return False
    return parsed.email.isascii() and address.index("@") <= LONGEST_LOCAL_PART


def _tagged(base: str, purpose: str, uuid: UUID) -> str:
    local, _, domain = base.rpartition("@")
    return f"{local}+{sign_uuid_caseless(purpose, uuid)}@{domain}" if base else ""

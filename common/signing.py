"""Tokens in links and addresses: ids and a proof, no address, no expiry.

Unsubscribe links must work for as long as the mail exists, so a token is never timed out, and it
still verifies after `SECRET_KEY` moved to `SECRET_KEY_FALLBACKS`.
"""

import base64
import binascii
import functools
import hashlib
import hmac
from collections.abc import Iterator
from uuid import UUID

from django.conf import settings

_PROOF_BYTES = 16
# With the id 25 bytes: 40 characters of base32 and not a bit over, so that there is one spelling.
_SHORT_PROOF_BYTES = 9


def sign_uuid(purpose: str, value: UUID) -> str:
    """A 43-character URL-safe token for the id, valid for this purpose only."""
    return sign_uuids(purpose, value)


def read_uuid(purpose: str, token: str) -> UUID | None:
    """The id a token was made for, or None when it was not made here for this purpose."""
    values = read_uuids(purpose, token, count=1)
    return values[0] if values is not None else None


def sign_uuids(purpose: str, *values: UUID) -> str:
    """A URL-safe token for the ids in this order, valid for this purpose only."""
    body = b"".join(value.bytes for value in values)
    return _encode(body + _proof(settings.SECRET_KEY, purpose, body))


def read_uuids(purpose: str, token: str, *, count: int) -> tuple[UUID, ...] | None:
    """The ids a token was made for, or None when it was not made here for this purpose and so
    many ids."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    # A second spelling of the same bytes (unused trailing bits) is not the token we made.
    if len(raw) != 16 * count + _PROOF_BYTES or _encode(raw) != token:
        return None
    body, proof = raw[:-_PROOF_BYTES], raw[-_PROOF_BYTES:]
    if any(hmac.compare_digest(_proof(key, purpose, body), proof) for key in _keys()):
        return tuple(UUID(bytes=body[at : at + 16]) for at in range(0, len(body), 16))
    return None


def sign_uuid_caseless(purpose: str, value: UUID) -> str:
    """A token of 40 characters, `a` to `z` and `2` to `7`, for the local part of an address: relays
    change its case, and 64 characters are all there is. 72 bits of it are proof."""
    proof = _proof(settings.SECRET_KEY, purpose, value.bytes)[:_SHORT_PROOF_BYTES]
    return base64.b32encode(value.bytes + proof).decode().lower()


def read_uuid_caseless(purpose: str, token: str) -> UUID | None:
    """The id such a token was made for, in whatever case it came back, or None."""
    try:
        raw = base64.b32decode(token.upper())
    except (binascii.Error, ValueError):
        return None
    if len(raw) != 16 + _SHORT_PROOF_BYTES:
        return None
    body, proof = raw[:16], raw[16:]
    proofs = (_proof(key, purpose, body)[:_SHORT_PROOF_BYTES] for key in _keys())
    return UUID(bytes=body) if any(hmac.compare_digest(p, proof) for p in proofs) else None


def _keys() -> Iterator[str]:
    yield settings.SECRET_KEY
    yield from settings.SECRET_KEY_FALLBACKS


def _proof(key: str, purpose: str, body: bytes) -> bytes:
    return hmac.digest(_derived(key, purpose), body, hashlib.sha256)[:_PROOF_BYTES]


@functools.lru_cache(maxsize=64)
def _derived(key: str, purpose: str) -> bytes:
    return hashlib.sha256(f"emailauto.{purpose}".encode() + key.encode()).digest()


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

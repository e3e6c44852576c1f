"""The proofs that a call is the provider's: credentials, keyed hashes, signatures, and its age.

A setting that is empty proves nothing to anybody: its webhooks are closed. Settings are lists, so
that an old and a new secret are good at once while one replaces the other.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, HashAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key
from django.conf import settings

from webhooks.adapters import NotAuthentic

# How far ahead of ours a provider's clock may be.
_AHEAD = timedelta(minutes=15)

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


def basic_auth_of(provider: str) -> Callable[[Mapping[str, str]], bool]:
    """headers → whether they carry the credentials of this provider's webhooks."""
    return partial(has_basic_auth, provider)


def has_basic_auth(provider: str, headers: Mapping[str, str]) -> bool:
    """Whether the call carries the provider's own pair, which follows from a `WEBHOOK_SECRET`, or
    such a pair itself, which is good for all of them. None set: never."""
    scheme, _, encoded = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return False
    given = from_base64(encoded.strip())
    secrets = _secrets()
    pairs = (*secrets, *(own_pair(provider, secret) for secret in secrets))
    return given is not None and is_one_of(given, (pair.encode() for pair in pairs))


def own_pair(provider: str, secret: str) -> str:
    """The `user:password` of this provider alone: whoever learns it learns no other's."""
    return f"{provider}:{_derived('password', provider, secret)}"


def own_path(provider: str, secret: str) -> str:
    """The part of the provider's webhook URL that nobody can guess."""
    return _derived("path", provider, secret)


def is_own_path(provider: str, token: str) -> bool:
    """Whether the token is that of the provider, by any of the secrets. None set: never."""
    paths = (own_path(provider, secret).encode() for secret in _secrets())
    return is_one_of(token.encode(), paths)


def _secrets() -> list[str]:
    return [entry for entry in settings.WEBHOOK_SECRET if is_pair(entry)]


def _derived(purpose: str, provider: str, secret: str) -> str:
    """160 bits; the same for as long as the secret is."""
    return hmac.digest(secret.encode(), f"webhooks:{purpose}:{provider}".encode(), sha256)[
        :20
    ].hex()


def is_pair(entry: str) -> bool:
    """Whether it is of the form `user:password`; nothing else lets anybody in."""
    return all(entry.partition(":"))


def is_one_of(given: bytes, expected: Iterable[bytes]) -> bool:
    """Whether `given` is among the secrets. Each is compared, in constant time: how long it takes
    tells nothing about which one was close."""
    return sum([hmac.compare_digest(given, secret) for secret in expected]) > 0


def from_base64(text: str) -> bytes | None:
    """The bytes, or None when the text is no base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


@lru_cache(maxsize=64)
def public_key(text: str) -> PublicKey | None:
    """The EC or RSA key, written as base64 of its DER form, or None when it is none."""
    try:
        key = load_der_public_key(from_base64(text) or b"")
    except ValueError:
        return None
    return key if isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey) else None


def is_signed(
    data: bytes, signature: str, keys: Iterable[str], algorithm: HashAlgorithm | None = None
) -> bool:
    """Whether one of the keys made the base64 signature: ECDSA, or RSA with PKCS #1 v1.5."""
    given = from_base64(signature)
    usable = [key for text in keys if (key := public_key(text)) is not None]
    return given is not None and any(
        has_signed(key, given, data, algorithm or SHA256()) for key in usable
    )


def has_signed(key: PublicKey, signature: bytes, data: bytes, algorithm: HashAlgorithm) -> bool:
    """Whether the key made the signature."""
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(algorithm))
        else:
            key.verify(signature, data, padding.PKCS1v15(), algorithm)
    except InvalidSignature:
        return False
    return True


def unix_time(text: str) -> datetime:
    """A time in whole seconds since 1970; raises `NotAuthentic` for anything else."""
    if re.fullmatch(r"[0-9]{1,11}", text) is None:
        raise NotAuthentic("The time it was signed at is none.")
    return datetime.fromtimestamp(int(text), UTC)


def require_recent(moment: datetime, now: datetime, window: timedelta) -> None:
    """Raise `NotAuthentic` unless a call signed at that moment may still be under way: `window` is
    how long the provider goes on trying."""
    if now - moment > window:
        raise NotAuthentic("It was signed too long ago.")
    if moment - now > _AHEAD:
        raise NotAuthentic("It was signed in the future: look at this machine's clock.")

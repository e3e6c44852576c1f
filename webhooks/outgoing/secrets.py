"""The secrets that outgoing webhooks are signed with: made here, kept encrypted, never shown again.

The key ring is `SECRET_KEY` and, for what was encrypted before it changed, `SECRET_KEY_FALLBACKS`.
"""

import base64
import secrets
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

PREFIX = "whsec_"
_BYTES = 32
_PURPOSE = b"emailauto.outgoing-secrets"


class SecretLost(Exception):
    """No key of the ring opens it: `SECRET_KEY` changed, and its fallbacks have not the old one."""


def new_secret() -> str:
    """A new secret as receivers' libraries take it: `whsec_` and 256 random bits in base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_BYTES)).decode()


def key_of(secret: str) -> bytes:
    """The bytes that a secret stands for."""
    return base64.b64decode(secret.removeprefix(PREFIX), validate=True)


def encrypt(secret: str) -> str:
    """What of a secret goes into the database."""
    return _ring().encrypt(secret.encode()).decode()


def decrypt(token: str) -> str:
    """The inverse of `encrypt`; raises `SecretLost`."""
    try:
        return _ring().decrypt(token.encode()).decode()
    except InvalidToken:
        raise SecretLost from None


def renew(token: str) -> str:
    """The same secret under the present `SECRET_KEY`; the token itself if it is that already.
    Raises `SecretLost`."""
    try:
        _fernet(settings.SECRET_KEY).decrypt(token.encode())
    except InvalidToken:
        return encrypt(decrypt(token))
    return token


def _ring() -> MultiFernet:
    keys = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    return MultiFernet([_fernet(key) for key in keys])


@lru_cache(maxsize=16)
def _fernet(key: str) -> Fernet:
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(key.encode())
    return Fernet(base64.urlsafe_b64encode(derived))

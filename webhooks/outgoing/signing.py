"""Signatures as Standard Webhooks has them, version `v1`: HMAC-SHA256 over id, time and body."""

import base64
import hmac
from collections.abc import Iterable

from webhooks.outgoing.secrets import key_of


def signed_headers(
    event_id: str, body: bytes, *, at: int, secrets: Iterable[str]
) -> dict[str, str]:
    """The three headers that prove an attempt made at this Unix time to be ours: a signature by
    each of the secrets, so that while one replaces the other both verify."""
    signed = f"{event_id}.{at}.".encode() + body
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(_signature(secret, signed) for secret in secrets),
    }


def _signature(secret: str, signed: bytes) -> str:
    digest = hmac.digest(key_of(secret), signed, "sha256")
    return f"v1,{base64.b64encode(digest).decode()}"

"""Signatures and secrets (S07, S09): the official vector, the reference library, the key ring."""

import time
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from webhooks.outgoing.secrets import (
    SecretLost,
    decrypt,
    encrypt,
    key_of,
    new_secret,
    renew,
)
from webhooks.outgoing.signing import signed_headers

# The vector of the specification, and of every reference library's tests.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'


def test_signature_is_that_of_the_official_vector() -> None:
    headers = signed_headers("msg_p5jXN8AQM9LWM0D4loKWxJek", BODY, at=1614265330, secrets=[SECRET])
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize("body", [b"{}", BODY, '{"name":"Zoë 🎈"}'.encode()])
def test_reference_library_verifies_ours(body: bytes) -> None:
    secret = new_secret()
    headers = signed_headers("evt:1", body, at=int(time.time()), secrets=[secret])
    Webhook(secret).verify(body, headers)


@pytest.mark.parametrize("change", ["body", "id", "time", "secret"])
def test_reference_library_refuses_what_was_changed(change: str) -> None:
    secret, now = new_secret(), int(time.time())
    headers = signed_headers("evt", BODY, at=now, secrets=[secret])
    changed = {"id": {"webhook-id": "other"}, "time": {"webhook-timestamp": str(now - 1)}}
    verifier = Webhook(new_secret() if change == "secret" else secret)
    body = BODY + b" " if change == "body" else BODY
    with pytest.raises(WebhookVerificationError):
        verifier.verify(body, headers | changed.get(change, {}))


def test_while_a_secret_is_replaced_both_verify() -> None:
    old, new = new_secret(), new_secret()
    headers = signed_headers("evt", BODY, at=int(time.time()), secrets=[new, old])
    Webhook(old).verify(BODY, headers)
    Webhook(new).verify(BODY, headers)


def test_secrets_are_different_and_have_256_bits() -> None:
    first, second = new_secret(), new_secret()
    assert first != second
    assert len(key_of(first)) == 32


def test_what_is_stored_does_not_contain_the_secret() -> None:
    secret = new_secret()
    assert secret.removeprefix("whsec_") not in encrypt(secret)
    assert encrypt(secret) != encrypt(secret)
    assert decrypt(encrypt(secret)) == secret


def test_secret_survives_a_new_secret_key_through_its_fallbacks(settings: Any) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "first", []
    token = encrypt("whsec_QQ==")
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "second", ["zeroth", "first"]
    assert decrypt(token) == "whsec_QQ=="
    renewed = renew(token)
    assert renew(renewed) == renewed
    settings.SECRET_KEY_FALLBACKS = []
    assert decrypt(renewed) == "whsec_QQ=="
    with pytest.raises(SecretLost):
        decrypt(token)


def test_secret_key_alone_does_not_open_what_was_changed() -> None:
    token = encrypt("whsec_QQ==")
    flipped = token[:-10] + ("A" if token[-10] != "A" else "B") + token[-9:]
    with pytest.raises(SecretLost):
        decrypt(flipped)

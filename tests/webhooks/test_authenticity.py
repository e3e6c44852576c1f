"""Which calls are taken for the provider's, provider by provider."""

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest

from tests.webhooks import signing
from tests.webhooks.amazon import Amazon
from tests.webhooks.cases import FIXTURES
from tests.webhooks.fixtures import fixture
from tests.webhooks.signing import SIGNERS, STRANGER, body_of, call, post
from webhooks.models import Receipt
from webhooks.providers import ADAPTERS

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sns_server")]

# Any will do that tells of a person.
NAMES = {provider: sorted(cases)[-1] for provider, cases in FIXTURES.items()} | {
    "postmark": "delivery"
}
EVERY = sorted(ADAPTERS)
ODD = ["", "x", "=", "AAAA", "v1,", "1795169040", "-1", "\xff", "9" * 5000]
SIGNED_BODY = ("mailersend", "postal", "resend", "sendgrid", "ses")
WINDOWS = {
    "mailgun": timedelta(hours=8),
    "resend": timedelta(hours=27, minutes=40),
    "sendgrid": timedelta(hours=24),
    "ses": timedelta(hours=1),
}


def body(provider: str) -> bytes:
    return body_of(provider, fixture(provider, NAMES[provider]))


def signed(provider: str, number: int = 0, **past: float) -> tuple[dict[str, str], bytes]:
    return SIGNERS[provider](body(provider), datetime.now(UTC) - timedelta(**past), number)


@pytest.mark.parametrize("provider", EVERY)
def test_every_secret_is_good_while_one_replaces_another(provider: str) -> None:
    statuses = [post(provider, *signed(provider, number)).status_code for number in range(STRANGER)]
    assert statuses == [200] * STRANGER
    assert Receipt.objects.filter(provider=provider).exists()


@pytest.mark.parametrize("provider", sorted(set(EVERY) - {"ses"}))  # test_sns
def test_stranger_is_refused(provider: str) -> None:
    # Of Mailgun the credentials are right; its signature is not.
    response = post(provider, *signed(provider, STRANGER))
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == 'Basic realm="webhooks"'
    assert not Receipt.objects.exists()


@pytest.mark.parametrize("provider", EVERY)
def test_call_without_proof_is_refused_before_its_body_is_read(provider: str) -> None:
    assert post(provider, {}, body(provider)).status_code == 401
    # Far beyond what would be read.
    assert post(provider, {}, b"x" * 6_000_000).status_code == 401
    assert not Receipt.objects.exists()


@pytest.mark.parametrize(
    ("provider", "name"),
    [(provider, name) for provider in EVERY for name in ADAPTERS[provider].settings],
)
def test_what_is_not_configured_is_closed(provider: str, name: str, settings: Any) -> None:
    setattr(settings, name, [])
    assert post(provider, *signed(provider)).status_code == 401
    assert not Receipt.objects.exists()


@pytest.mark.parametrize("provider", SIGNED_BODY)
def test_changed_body_is_refused(provider: str) -> None:
    headers, original = signed(provider)
    changed = original.replace(b"ada@example.com", b"eve@example.com")
    assert changed != original
    assert post(provider, headers, changed).status_code == 401
    assert not Receipt.objects.exists()


@pytest.mark.parametrize("provider", WINDOWS)
def test_call_is_taken_for_as_long_as_the_provider_tries_and_not_much_longer(provider: str) -> None:
    window = WINDOWS[provider]
    late = {"seconds": window.total_seconds()}
    too_late = {"seconds": (window + timedelta(hours=1, minutes=5)).total_seconds()}
    assert post(provider, *signed(provider, **late)).status_code == 200
    kept = Receipt.objects.count()
    assert post(provider, *signed(provider, **too_late)).status_code == 401
    assert post(provider, *signed(provider, hours=-1)).status_code == 401
    assert Receipt.objects.count() == kept


@pytest.mark.parametrize(
    ("provider", "header"),
    [
        ("sendgrid", "X-Twilio-Email-Event-Webhook-Signature"),
        ("sendgrid", "X-Twilio-Email-Event-Webhook-Timestamp"),
        ("resend", "svix-id"),
        ("resend", "svix-timestamp"),
        ("resend", "svix-signature"),
        ("mailersend", "Signature"),
        ("postal", "X-Postal-Signature-256"),
        ("ses", "x-amz-sns-topic-arn"),
        ("mailgun", "Authorization"),
        ("brevo", "Authorization"),
    ],
)
@pytest.mark.parametrize("value", ODD)
def test_odd_header_is_refused(provider: str, header: str, value: str) -> None:
    headers, original = signed(provider)
    headers[header] = value
    if provider == "postal":  # which would look at the older header instead of an empty one
        del headers["X-Postal-Signature"]
    assert post(provider, headers, original).status_code == 401
    assert not Receipt.objects.exists()


def test_postal_2_signs_with_sha_1_only_and_a_better_signature_is_not_passed_over() -> None:
    headers, original = signed("postal")
    better = base64.b64decode(headers.pop("X-Postal-Signature-256"))
    assert post("postal", headers, original).status_code == 200
    headers["X-Postal-Signature-256"] = base64.b64encode(better[::-1]).decode()
    assert post("postal", headers, original).status_code == 401


def test_mailgun_needs_our_credentials_besides(settings: Any) -> None:
    headers, original = signed("mailgun")
    stranger, _ = signing.basic(b"", datetime.now(UTC), STRANGER)
    assert post("mailgun", stranger, original).status_code == 401
    assert post("mailgun", headers, original).status_code == 200


def test_signature_of_mailgun_is_good_for_one_body(caplog: pytest.LogCaptureFixture) -> None:
    headers, original = signed("mailgun")
    assert [post("mailgun", headers, original).status_code for _ in range(3)] == [200] * 3
    document = json.loads(original)
    document["event-data"]["event"] = "complained"
    assert post("mailgun", headers, json.dumps(document).encode()).status_code == 401
    receipt = Receipt.objects.get()
    assert bytes(receipt.body) == original
    assert caplog.records[-1].why == "Its signature was used before, for another call."  # type: ignore[attr-defined]


def test_token_of_mailgun_does_not_end_where_somebody_else_says() -> None:
    headers, original = signed("mailgun")
    document = json.loads(original)
    block = document["signature"]
    text = block["timestamp"] + block["token"]
    for length in (*range(10), 11, 12):
        block["timestamp"], block["token"] = text[:length], text[length:]
        assert post("mailgun", headers, json.dumps(document).encode()).status_code == 401
    assert not Receipt.objects.exists()


def test_ping_of_mailersend_is_answered_before_its_secret_is_known(settings: Any) -> None:
    """Without an answer it does not save the webhook, and shows no secret."""
    settings.MAILERSEND_WEBHOOK_SECRET = []
    ping = {"type": "webhook.test", "message": "This is a ping test message"}
    published = "test_Am3L1GuOIc4blLUuHqAPxxwkZaJyEk8G"
    for document, status in ((ping, 200), (fixture("mailersend", "unsubscribed"), 401)):
        text = json.dumps(document).encode()
        signature = hmac.new(published.encode(), text, sha256).hexdigest()
        assert post("mailersend", {"Signature": signature}, text).status_code == status
    assert post("mailersend", {"Signature": "0" * 64}, json.dumps(ping).encode()).status_code == 401
    assert not Receipt.objects.exists()


@pytest.mark.parametrize("block", [None, {}, [], "x", {"timestamp": None}, {"token": ""}])
def test_call_of_mailgun_without_a_signature_is_refused(block: Any) -> None:
    headers, original = signed("mailgun")
    document = {**json.loads(original), "signature": block}
    assert post("mailgun", headers, json.dumps(document).encode()).status_code == 401


def test_event_of_resend_keeps_its_id_when_it_is_sent_again() -> None:
    for past in (3, 2, 1):
        assert post("resend", *signed("resend", hours=past)).status_code == 200
    receipt = Receipt.objects.get()
    assert receipt.provider_event_id.startswith("msg_")


def test_secret_of_resend_without_a_key_is_none(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.RESEND_WEBHOOK_SECRET = ["whsec_"]
    monkeypatch.setattr(signing, "SVIX", ["whsec_"])
    assert post("resend", *signed("resend")).status_code == 401


def test_refusal_says_why_in_the_log_and_names_nobody(caplog: pytest.LogCaptureFixture) -> None:
    call("sendgrid", fixture("sendgrid", "bounce"), number=STRANGER)
    (record,) = [entry for entry in caplog.records if entry.name == "webhooks.intake"]
    assert record.getMessage() == "webhook refused"
    assert record.why == "The signature is not SendGrid's."  # type: ignore[attr-defined]
    assert "example.com" not in json.dumps(record.__dict__, default=str)


def test_amazon_is_asked_for_each_certificate_once(sns_server: Amazon) -> None:
    for _ in range(3):
        post("ses", *signed("ses"))
    assert len(sns_server.asked) == 1

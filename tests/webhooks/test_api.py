"""`POST /webhooks/<provider>/`: what is kept, what is refused."""

import json
from base64 import b64encode
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from common.clock import now
from common.valkey import redis_client
from contacts.models import Consent
from delivery.models import Message
from suppression.models import Suppression
from tests.factories import MessageFactory, TopicFactory
from tests.webhooks.postmark import call, payload
from tests.webhooks.signing import SIGNERS, post
from webhooks.authenticity import own_pair, own_path
from webhooks.models import Receipt
from webhooks.services import drain_receipts

pytestmark = pytest.mark.django_db(transaction=True)


def test_call_is_kept_byte_for_byte_and_rings() -> None:
    body = json.dumps(payload("delivery"), indent=3).encode()
    response = call(body)
    assert response.status_code == 200
    receipt = Receipt.objects.get()
    assert bytes(receipt.body) == body
    assert (receipt.provider, receipt.content_type) == ("postmark", "application/json")
    assert receipt.state == "pending"
    assert redis_client().exists("bell:feedback")


def test_call_is_taken_without_the_slash_too() -> None:
    assert call(payload("delivery"), path="/webhooks/postmark").status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic",
        "Basic aG9vazp3cm9uZw==",  # hook:wrong
        "Basic aG9vazpzZWNyZXQ",  # broken base64
        "Bearer hook:secret",
        "Basic Og==",  # :
    ],
)
def test_wrong_credentials_are_401_and_change_nothing(header: str | None) -> None:
    message = MessageFactory(state="sent")
    response = Client().post(
        "/webhooks/postmark/",
        data=json.dumps(payload("bounce_HardBounce", message)),
        content_type="application/json",
        headers={"Authorization": header} if header is not None else {},
    )
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == 'Basic realm="webhooks"'
    assert not Receipt.objects.exists()


def test_without_a_secret_every_call_is_refused(settings: Any) -> None:
    for secrets in ([], [""], [":"], ["hook"]):
        settings.WEBHOOK_SECRET = secrets
        assert call(payload("delivery"), auth=secrets[0] if secrets else "").status_code == 401


def test_both_secrets_are_good_while_rotating(settings: Any) -> None:
    settings.WEBHOOK_SECRET = ["old:one", "new:two"]
    answers = [call(payload("delivery"), auth=auth).status_code for auth in ("old:one", "new:two")]
    assert answers == [200, 200]


BY_BASIC = ("postmark", "brevo", "mailjet", "sparkpost", "mailgun")


@pytest.mark.parametrize("provider", BY_BASIC)
def test_providers_own_credentials_open_no_other_providers_webhooks(provider: str) -> None:
    """They stand in a URL that the provider, and whoever reads its settings, can see."""
    own = own_pair(provider, "hook:secret")
    for called in BY_BASIC:
        headers, body = SIGNERS[called](b"{}", now(), 0)
        headers["Authorization"] = f"Basic {b64encode(own.encode()).decode()}"
        expected = 200 if called == provider else 401
        body = b"[]" if called == "sparkpost" else body
        assert post(called, headers, body).status_code == expected
    # The common ones stay good at the plain path.
    headers, body = SIGNERS[provider](b"[]" if provider == "sparkpost" else b"{}", now(), 0)
    assert post(provider, headers, body).status_code == 200


def test_path_nobody_can_guess_is_the_providers_alone_and_needs_its_proof_too() -> None:
    own, others = (own_path(name, "hook:secret") for name in ("postmark", "brevo"))
    for end in ("/", ""):
        path = f"/webhooks/postmark/{own}{end}"
        assert call(payload("delivery"), path=path).status_code == 200
        assert call(payload("delivery"), path=path, auth="hook:wrong").status_code == 401
        strange = f"/webhooks/postmark/{others}{end}"
        assert call(payload("delivery"), path=strange).status_code == 401
    for no_token in ("x", own[:-1], f"{own}0", own.upper(), f"{own}/{own}"):
        assert call(payload("delivery"), path=f"/webhooks/postmark/{no_token}/").status_code == 404


def test_path_follows_from_each_secret_and_from_none_without(settings: Any) -> None:
    settings.WEBHOOK_SECRET = ["old:one", "new:two"]
    for secret in settings.WEBHOOK_SECRET:
        path = f"/webhooks/postmark/{own_path('postmark', secret)}/"
        auth = own_pair("postmark", secret)
        assert call(payload("delivery"), path=path, auth=auth).status_code == 200
    settings.WEBHOOK_SECRET = []
    assert call(payload("delivery"), path=path, auth=auth).status_code == 401


def test_call_repeated_46_times_has_one_effect() -> None:
    message = MessageFactory(state="sent", stream="marketing", topic=TopicFactory())
    complaint = payload("spam_complaint", message)
    for _ in range(46):
        assert call(complaint).status_code == 200
        drain_receipts(budget=5)
    assert Receipt.objects.count() == 1
    assert Suppression.objects.count() == 1
    assert Consent.objects.filter(topic=message.topic).count() == 1
    assert Consent.objects.filter(topic=None).count() == 1  # the objection


def test_repetition_is_recognised_after_a_reactivation() -> None:
    call(payload("bounce_HardBounce"))
    call(payload("bounce_HardBounce", Inactive=False, CanActivate=False))
    assert Receipt.objects.count() == 1


def test_two_opens_of_one_message_are_two_receipts() -> None:
    call(payload("open"))
    call(payload("open", ReceivedAt="2026-11-20T11:00:00Z", FirstOpen=False))
    assert Receipt.objects.count() == 2


def test_too_large_body_is_413() -> None:
    assert call(b"[" + b" " * 1024 * 1024 + b"]").status_code == 413
    assert not Receipt.objects.exists()


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'"text"', b"null", b"\xff\xfe{}", b'{"a": \xff}', b"[" * 100_000],
)
def test_body_that_is_no_json_object_is_kept_as_it_is(body: bytes) -> None:
    assert call(body).status_code == 200
    assert bytes(Receipt.objects.get().body) == body


def test_empty_body_is_400() -> None:
    assert call(b"").status_code == 400
    assert not Receipt.objects.exists()


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"RecordType": None},
        {"RecordType": ["Bounce"]},
        {"RecordType": "Tomorrow", "ID": "\u0000"},
        {"RecordType": "Open", "MessageID": "\u0000", "Recipient": "\ud800"},
    ],
)
def test_odd_but_authentic_call_is_kept(document: dict[str, Any]) -> None:
    assert call(document).status_code == 200
    assert Receipt.objects.count() == 1


def test_unknown_provider_is_404() -> None:
    assert call(payload("delivery"), path="/webhooks/nobody/").status_code == 404


@pytest.mark.parametrize("method", ["get", "head", "put", "delete", "options"])
def test_anything_but_post_is_405(method: str) -> None:
    assert getattr(Client(), method)("/webhooks/postmark/").status_code == 405


def test_database_away_is_503_with_retry_after() -> None:
    port = connection.settings_dict["PORT"]
    connection.close()
    connection.settings_dict["PORT"] = "1"
    try:
        response = call(payload("delivery"))
    finally:
        connection.close()
        connection.settings_dict["PORT"] = port
    assert response.status_code == 503
    assert int(response["Retry-After"]) > 0


def test_hard_bounce_over_http_suppresses_and_marks() -> None:
    message = MessageFactory(state="sent", contact__email="Ada@example.com")
    call(payload("bounce_HardBounce", message))
    drain_receipts(budget=5)
    receipt = Receipt.objects.get()
    assert receipt.state == "applied"
    assert receipt.outcome == [
        {
            "kind": "bounced",
            "class": "hard",
            "message": str(message.pk),
            "effects": ["bounced_at", "suppressed:all"],
        }
    ]
    suppression = Suppression.objects.get()
    assert (suppression.scope, suppression.reason, suppression.source) == (
        "all",
        "hard_bounce",
        "postmark",
    )
    assert suppression.evidence.startswith("HardBounce · smtp;550 5.1.1")
    assert Message.objects.get().bounced_at is not None

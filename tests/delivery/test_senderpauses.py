"""One sender that a provider does not accept, and all the others."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from delivery.connections import pool
from delivery.engine import drain
from delivery.explanations import advice_of, sentence_of
from delivery.models import Circuit, Message, Provider, Sender, SenderPause
from delivery.recovery import release_held
from delivery.services import try_again
from tests.delivery.fakeesp import Answer, FakeESP, fake_esp
from tests.delivery.test_providers import NAMES
from tests.factories import MessageFactory, ProviderFactory, SenderFactory

pytestmark = pytest.mark.django_db

UNVERIFIED = Answer(422, {"ErrorCode": 400, "Message": "sender signature not found"})


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for names in NAMES.values():
        for name in names:
            monkeypatch.setenv(name, f"secret-of-{name}")
    yield
    pool.close()


def provider_at(esp: FakeESP, kind: str = "postmark", **fields: Any) -> Provider:
    provider: Provider = ProviderFactory(
        key=fields.pop("key", kind),
        backend=kind,
        api_url=esp.url,
        secret_env=", ".join(NAMES[kind]),
        concurrency=1,
        **fields,
    )
    return provider


def unverified(provider: Provider) -> Sender:
    sender: Sender = SenderFactory(provider=provider, email="promo@unverified.example")
    return sender


def states_of(sender: Sender) -> set[tuple[str, str]]:
    return set(Message.objects.filter(sender=sender).values_list("state", "reason"))


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("postmark", UNVERIFIED),
        ("postmark", Answer(422, {"ErrorCode": 401, "Message": "not confirmed"})),
        ("mailgun", Answer(404, {"message": "Domain not found: unverified.example"})),
        ("resend", Answer(403, {"name": "validation_error", "message": "is not verified"})),
        ("sendgrid", Answer(403, {"errors": [{"message": "not a verified Sender Identity"}]})),
        ("sparkpost", Answer(400, {"errors": [{"code": "7001", "message": "domain"}]})),
        (
            "postal",
            Answer(200, {"status": "error", "data": {"code": "UnauthenticatedFromAddress"}}),
        ),
        (
            "ses",
            Answer(
                400, {"message": "x"}, {"x-amzn-ErrorType": "MailFromDomainNotVerifiedException"}
            ),
        ),
    ],
)
def test_unverified_sender_stops_nobody_else(kind: str, answer: Answer) -> None:
    with fake_esp(kind) as esp:
        provider = provider_at(esp, kind)
        bad, good = unverified(provider), SenderFactory(provider=provider)
        MessageFactory(sender=bad)
        esp.script = [answer]
        drain("transactional", budget=2)
        MessageFactory(sender=good)
        drain("transactional", budget=2)
    assert states_of(bad) == {("retry", "sender_refused")}
    assert states_of(good) == {("sent", "")}
    assert not Circuit.objects.exists()


def test_rest_of_the_senders_mail_waits_without_being_offered_and_says_why() -> None:
    with fake_esp("postmark") as esp:
        provider = provider_at(esp)
        bad, good = unverified(provider), SenderFactory(provider=provider)
        for _ in range(5):
            MessageFactory(sender=bad)
            MessageFactory(sender=good)
        esp.script = [UNVERIFIED]
        drain("transactional", budget=5)
        assert len(esp.requests) == 6
    assert states_of(good) == {("sent", "")}
    assert states_of(bad) == {("retry", "sender_refused"), ("held", "sender_refused")}
    held = Message.objects.filter(state="held").first()
    assert held is not None
    assert "unverified.example" in sentence_of(held)
    assert "Verify" in advice_of(held)
    assert set(Message.objects.values_list("failures", flat=True)) == {0}


def test_it_leaves_by_itself_once_the_domain_is_verified() -> None:
    with fake_esp("postmark") as esp:
        provider = provider_at(esp)
        bad = unverified(provider)
        MessageFactory.create_batch(3, sender=bad)
        esp.script = [UNVERIFIED]
        drain("transactional", budget=5)
        # Five minutes later.
        SenderPause.objects.update(until=Now() - timedelta(seconds=1))
        Message.objects.update(due_at=Now() - timedelta(seconds=1))
        assert release_held() == 2
        drain("transactional", budget=5)
    assert states_of(bad) == {("sent", "")}


def test_operator_has_it_tried_again_at_once() -> None:
    with fake_esp("postmark") as esp:
        provider = provider_at(esp)
        bad = unverified(provider)
        MessageFactory.create_batch(3, sender=bad)
        esp.script = [UNVERIFIED]
        drain("transactional", budget=5)
        assert try_again(provider) == 3
        drain("transactional", budget=5)
    assert states_of(bad) == {("sent", "")}
    assert not SenderPause.objects.exists()


def test_stand_in_that_accepts_the_sender_takes_its_mail() -> None:
    with fake_esp("postmark") as refusing, fake_esp("brevo") as accepting:
        own = provider_at(refusing, pool="both")
        provider_at(accepting, "brevo", pool="both")
        bad = unverified(own)
        MessageFactory.create_batch(3, sender=bad)
        refusing.script = [UNVERIFIED]
        drain("transactional", budget=5)
        assert len(refusing.requests) == 1
        assert len(accepting.requests) == 2

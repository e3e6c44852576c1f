"""A call over HTTP until it has its effect, for every provider."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from contacts.models import Consent
from delivery.models import Message
from suppression.models import Suppression
from tests.factories import MessageFactory
from tests.webhooks.cases import FIXTURES
from tests.webhooks.fixtures import fixture
from tests.webhooks.mails import BY_ESP_ID, sent_through
from tests.webhooks.signing import call
from webhooks.models import Receipt
from webhooks.services import drain_receipts

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sns_server")]

EVERY = sorted(FIXTURES)


def first(provider: str, *meaning: str | None) -> str:
    """A fixture that means this."""
    told = FIXTURES[provider]
    return next(name for name in told if told[name][: len(meaning)] == meaning)


def tell(provider: str, name: str, message: Message) -> Message:
    """Have the provider say it, and the worker act on it."""
    assert call(provider, fixture(provider, name, message)).status_code == 200
    drain_receipts(budget=10)
    (receipt,) = Receipt.objects.all()
    assert (receipt.state, receipt.error) == ("applied", "")
    assert receipt.outcome[0]["message"] == str(message.pk)
    message.refresh_from_db()
    return message


@pytest.mark.parametrize("provider", EVERY)
@pytest.mark.parametrize("kind", ["delivered", "opened", "clicked"])
def test_good_news_is_written_onto_the_message(provider: str, kind: str) -> None:
    message = tell(provider, first(provider, kind), sent_through(provider))
    assert getattr(message, f"{kind}_at") is not None
    assert not Suppression.objects.exists()


@pytest.mark.parametrize("provider", sorted(set(EVERY) - set(BY_ESP_ID)))
def test_news_clears_a_doubt(provider: str) -> None:
    message = sent_through(provider, state="unknown")
    assert tell(provider, first(provider, "delivered"), message).state == "sent"


@pytest.mark.parametrize("provider", EVERY)
def test_hard_bounce_suppresses_the_address(provider: str) -> None:
    message = tell(provider, first(provider, "bounced", "hard"), sent_through(provider))
    assert message.bounced_at is not None
    suppression = Suppression.objects.get()
    assert (suppression.scope, suppression.reason, suppression.source) == (
        "all",
        "hard_bounce",
        provider,
    )


@pytest.mark.parametrize(
    ("provider", "kind", "reason"),
    [
        *[(provider, "complained", "complaint") for provider in EVERY if provider != "postal"],
        *[
            (provider, "unsubscribed", "unsubscribe")
            for provider in EVERY
            if provider not in ("postal", "resend")  # which have no such event
        ],
    ],
)
def test_person_who_had_enough_is_left_alone(provider: str, kind: str, reason: str) -> None:
    message = tell(provider, first(provider, kind), sent_through(provider))
    assert getattr(message, f"{kind}_at") is not None
    suppression = Suppression.objects.get()
    assert (suppression.scope, suppression.reason) == ("marketing", reason)
    withdrawn = Consent.objects.filter(state="withdrawn").values_list("purpose", flat=True)
    assert sorted(withdrawn) == ["mail", "marketing"]


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        (provider, name)
        for provider, told in FIXTURES.items()
        for name, meaning in told.items()
        if meaning[0] in ("deferred", "other")
    ],
)
def test_other_news_changes_nothing(provider: str, name: str) -> None:
    message = sent_through(provider)
    before = row_of(message)
    assert call(provider, fixture(provider, name, message)).status_code == 200
    drain_receipts(budget=10)
    assert Receipt.objects.get().outcome[0]["kind"] == FIXTURES[provider][name][0]
    assert row_of(message) == before
    assert not Suppression.objects.exists()


def row_of(message: Message) -> dict[str, Any]:
    """All but the provider's own id, which is welcome whenever it comes."""
    row = Message.objects.filter(pk=message.pk).values().get()
    del row["esp_id"]
    return row


@pytest.mark.parametrize(
    ("provider", "name", "changes"),
    [
        ("ses", "event_bounce", {"bounce.bounceSubType": "MailboxFull"}),
        (
            *("ses", "event_bounce"),
            {
                "bounce.bounceSubType": "General",
                "bounce.bouncedRecipients": [{"emailAddress": "ada@example.com"}],
            },
        ),
        ("ses", "event_complaint", {"complaint.complaintFeedbackType": "not-spam"}),
        ("sendgrid", "blocked", {}),
        ("mailgun", "failed_permanent", {"event-data.reason": "espblock"}),
        ("mailgun", "failed_temporary", {}),
        ("brevo", "blocked", {}),
        ("resend", "failed", {}),
        ("mailjet", "blocked", {"error": "sender blocked"}),
        ("sparkpost", "out_of_band", {}),
        ("sparkpost", "bounce", {"msys.message_event.bounce_class": "60"}),
        ("postal", "message_held", {}),
    ],
)
def test_good_address_is_not_thrown_away(provider: str, name: str, changes: dict[str, Any]) -> None:
    """A full mailbox, a holiday, a receiver that dislikes the sender."""
    if provider == "ses" and "bounce.bounceSubType" in changes:
        changes = {"bounce.bounceType": "Transient", **changes}
    message = sent_through(provider)
    assert call(provider, fixture(provider, name, message, changes)).status_code == 200
    drain_receipts(budget=10)
    assert Receipt.objects.get().state == "applied"
    assert not Suppression.objects.exists()
    assert Message.objects.get().bounced_at is None


@pytest.mark.parametrize("provider", EVERY)
def test_bounce_of_a_mail_nobody_knows_suppresses_the_address_it_names(provider: str) -> None:
    assert call(provider, fixture(provider, first(provider, "bounced", "hard"))).status_code == 200
    drain_receipts(budget=10)
    assert Receipt.objects.get().outcome[0]["message"] is None
    suppression = Suppression.objects.get()
    assert suppression.email == "ada@example.com"


def queries_for(number: int) -> int:
    Receipt.objects.all().delete()
    messages = [MessageFactory(state="sent") for _ in range(number)]
    for provider in EVERY:
        name = first(provider, "opened")
        for message in messages:
            call(provider, fixture(provider, name, message))
    with CaptureQueriesContext(connection) as queries:
        drain_receipts(budget=60)
    return len(queries)


def test_queries_of_a_batch_do_not_depend_on_how_many_providers_told_how_much(
    settings: Any,
) -> None:
    settings.INTAKE_CACHE_SECONDS = 3_600  # what is remembered is not asked for in between
    queries_for(1)
    assert queries_for(1) == queries_for(10)

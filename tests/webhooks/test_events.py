"""From a call to receipts: arrays, repetitions, limits, and faults that are ours."""

import json
from collections import Counter
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from common.clock import now
from delivery.models import Message
from suppression.models import Suppression
from tests.factories import MessageFactory
from tests.webhooks.cases import FIXTURES
from tests.webhooks.fixtures import fixture
from tests.webhooks.mails import sent_through
from tests.webhooks.signing import ARRAYS, SIGNERS, TOPIC, body_of, call, post
from webhooks.adapters import MEGABYTE
from webhooks.models import Receipt
from webhooks.providers import ADAPTERS
from webhooks.services import MAX_ATTEMPTS, drain_receipts, replay_receipts

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sns_server")]

# Of one event of each kind: what makes the next one another.
NUMBERED = {"mailjet": "time", "sendgrid": "sg_event_id", "sparkpost": "event_id"}


def events(provider: str, *numbers: int, message: Message | None = None) -> list[Any]:
    """Deliveries that differ."""
    name = {"mailjet": "sent", "sendgrid": "delivered", "sparkpost": "delivery"}[provider]
    path = NUMBERED[provider]
    if provider == "sparkpost":
        path = f"msys.message_event.{path}"
    values = [number if provider == "mailjet" else f"event-{number}" for number in numbers]
    return [fixture(provider, name, message, {path: value}) for value in values]


def drain() -> None:
    while drain_receipts(budget=20):
        pass


@pytest.mark.parametrize("provider", ARRAYS)
def test_array_is_one_receipt_for_each_event_byte_for_byte(provider: str) -> None:
    told = events(provider, 1, 2, 3)
    texts = [json.dumps(event, indent=2) for event in told]
    body = ("[" + " ,\n".join(texts) + " ]").encode()
    headers, body = SIGNERS[provider](body, now(), 0)
    assert post(provider, headers, body).status_code == 200
    assert {bytes(receipt.body).decode() for receipt in Receipt.objects.all()} == set(texts)


@pytest.mark.parametrize("provider", ARRAYS)
def test_event_that_comes_again_in_another_array_is_known(provider: str) -> None:
    first, second, third = events(provider, 1, 2, 3)
    for told in ([first, second], [third, second], [second], [second, second], []):
        assert call(provider, *told).status_code == 200
    assert Receipt.objects.count() == 3


@pytest.mark.parametrize("provider", ARRAYS)
@pytest.mark.parametrize("bad", [None, 7, "text", [], [[]]])
def test_element_that_cannot_be_read_dies_alone(provider: str, bad: Any) -> None:
    messages = [MessageFactory(state="sent") for _ in range(3)]
    told = [events(provider, 1, message=message)[0] for message in messages]
    for number, event in enumerate(told):
        _number(provider, event, number + 1)
    assert call(provider, told[0], bad, *told[1:]).status_code == 200
    drain()
    assert Message.objects.filter(delivered_at__isnull=False).count() == 3
    assert Counter(Receipt.objects.values_list("state", flat=True)) == {"applied": 3, "pending": 1}
    assert "Malformed" in Receipt.objects.get(state="pending").error


def test_thousand_events_with_a_bad_one_are_999_and_a_dead_letter() -> None:
    told: list[Any] = events("sendgrid", *range(999))
    told.insert(500, "what is this?")
    with CaptureQueriesContext(connection) as one:
        assert call("sendgrid", *told[:1]).status_code == 200
    with CaptureQueriesContext(connection) as thousand:
        assert call("sendgrid", *told).status_code == 200
    assert len(thousand) == len(one)
    drain()
    Receipt.objects.filter(state="pending").update(attempts=4, due_at="2026-01-01T00:00Z")
    drain()
    assert Counter(Receipt.objects.values_list("state", flat=True)) == {"parked": 999, "dead": 1}
    dead = Receipt.objects.get(state="dead")
    assert bytes(dead.body) == b'"what is this?"'
    assert replay_receipts([dead.pk]) == 1


def test_mailjet_tells_one_event_without_an_array_too() -> None:
    (event,) = events("mailjet", 1)
    headers, body = SIGNERS["mailjet"](json.dumps(event).encode(), now(), 0)
    assert post("mailjet", headers, body).status_code == 200
    assert call("mailjet", event).status_code == 200
    assert Receipt.objects.count() == 1


def test_ping_of_sparkpost_is_answered_and_forgotten() -> None:
    assert call("sparkpost", {"msys": {}}).status_code == 200
    assert not Receipt.objects.exists()


@pytest.mark.parametrize("provider", sorted(FIXTURES))
def test_call_repeated_46_times_has_one_effect(provider: str) -> None:
    name = next(name for name, meaning in FIXTURES[provider].items() if meaning[0] == "delivered")
    message = sent_through(provider)
    signed = SIGNERS[provider](body_of(provider, fixture(provider, name, message)), now(), 0)
    for _ in range(46):
        assert post(provider, *signed).status_code == 200
        drain_receipts(budget=5)
    assert Receipt.objects.get().state == "applied"
    assert Message.objects.get().delivered_at is not None


@pytest.mark.parametrize("kind", ["bounce", "complaint", "delivery"])
def test_notification_and_event_of_ses_about_the_same_are_one_receipt(kind: str) -> None:
    for name in (f"notification_{kind}", f"event_{kind}", f"notification_{kind}"):
        assert call("ses", fixture("ses", name)).status_code == 200
    assert Receipt.objects.count() == 1


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("event_bounce", {"bounce.feedbackId": "another"}),
        ("event_delivery", {"mail.messageId": "another"}),
        ("event_delivery", {"delivery.recipients": ["bob@example.com"]}),
        ("event_open", {"open.timestamp": "2026-11-20T10:05:00.000Z"}),
        ("event_click", {"click.link": "https://shop.example.com/other"}),
    ],
)
def test_events_of_ses_that_differ_are_two_receipts(name: str, changes: dict[str, Any]) -> None:
    call("ses", fixture("ses", name))
    call("ses", fixture("ses", name, changes=changes))
    assert Receipt.objects.count() == 2


@pytest.mark.parametrize("provider", ["brevo", "mailjet"])
def test_event_without_an_id_is_known_by_what_it_tells(provider: str) -> None:
    name, later = {
        "brevo": ("click", {"ts_event": 1795172700, "ts_epoch": 1795169100000}),
        "mailjet": ("click", {"time": 1795169100}),
    }[provider]
    for changes in ({}, {"tag": "added on the way"}, later, {"email": "bob@example.com"}):
        assert call(provider, fixture(provider, name, changes=changes)).status_code == 200
    assert Receipt.objects.count() == 3


@pytest.mark.parametrize("provider", sorted(ADAPTERS))
def test_body_may_be_as_large_as_the_provider_makes_it(provider: str) -> None:
    most = ADAPTERS[provider].max_body
    assert most == (5 if provider in (*ARRAYS, "brevo") else 1) * MEGABYTE
    headers = {
        **SIGNERS["mailgun"](b"{}", now(), 0)[0],
        "X-Twilio-Email-Event-Webhook-Signature": "AAAA",
        "svix-signature": "v1,AAAA",
        "Signature": "AAAA",
        "X-Postal-Signature-256": "AAAA",
        "x-amz-sns-topic-arn": TOPIC,
    }
    assert post(provider, headers, b"x" * (most + 1)).status_code == 413
    assert post(provider, headers, b" " * most).status_code in (400, 401)


@pytest.mark.parametrize("provider", sorted(ADAPTERS))
def test_fault_of_ours_is_answered_such_that_the_provider_calls_again(provider: str) -> None:
    document = (
        {"RecordType": "Delivery"}
        if provider == "postmark"
        else fixture(provider, sorted(FIXTURES[provider])[0])
    )
    port = connection.settings_dict["PORT"]
    connection.close()
    connection.settings_dict["PORT"] = "1"
    try:
        response = call(provider, document)
    finally:
        connection.close()
        connection.settings_dict["PORT"] = port
    assert response.status_code == (429 if provider == "brevo" else 503)
    assert int(response["Retry-After"]) > 0
    assert call(provider, document).status_code == 200


UNHEARD_OF = [b"{", b'"text"', b"null", b"7", b"\xff\xfe{}", b"[" * 100_000]


@pytest.mark.parametrize("body", UNHEARD_OF)
@pytest.mark.parametrize("provider", ["brevo", "mailjet", "sparkpost", "resend", "postal"])
def test_authentic_call_of_a_shape_nobody_knows_is_kept_whole_and_dies(
    provider: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Brevo throws away what is refused with a 400."""
    for _ in range(2):
        assert post(provider, *SIGNERS[provider](body, now(), 0)).status_code == 200
    receipt = Receipt.objects.get()
    assert bytes(receipt.body) == body
    for _ in range(MAX_ATTEMPTS):
        drain()
        Receipt.objects.update(due_at=now())
    receipt.refresh_from_db()
    assert (receipt.state, "Malformed" in receipt.error) == ("dead", True)
    assert "webhook of an unknown shape" in caplog.messages


@pytest.mark.parametrize("body", [b"", b" \n"])
@pytest.mark.parametrize("provider", ["brevo", "mailjet", "sparkpost", "resend", "postal"])
def test_call_without_a_body_is_400(
    provider: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    assert post(provider, *SIGNERS[provider](body, now(), 0)).status_code == 400
    assert not Receipt.objects.exists()
    assert "webhook malformed" in caplog.messages


def test_no_line_of_the_log_quotes_what_was_kept_whole(caplog: pytest.LogCaptureFixture) -> None:
    body = b"ada@example.com"
    assert post("brevo", *SIGNERS["brevo"](body, now(), 0)).status_code == 200
    drain()
    assert caplog.records
    for record in caplog.records:
        assert "ada" not in f"{record.getMessage()} {record.__dict__}"


def test_whole_call_is_read_once_its_shape_is_known() -> None:
    """An array of what comes one by one otherwise, as a provider may begin to send it."""
    messages = [MessageFactory(state="sent") for _ in range(2)]
    told = [fixture("postmark", "delivery", message) for message in messages]
    assert call("postmark", told).status_code == 200
    drain()
    assert Receipt.objects.get().state == "applied"
    assert Message.objects.filter(delivered_at__isnull=False).count() == 2


def test_brevo_batches_are_taken_apart() -> None:
    messages = [MessageFactory(state="sent") for _ in range(3)]
    told = [fixture("brevo", "delivered", message) for message in messages]
    for number, event in enumerate(told):
        event["ts_epoch"] = 1_700_000_000_000 + number
    assert call("brevo", [told[0], "no event", *told[1:]]).status_code == 200
    assert call("brevo", told[1]).status_code == 200  # once more, by itself
    drain()
    assert Message.objects.filter(delivered_at__isnull=False).count() == 3
    assert Counter(Receipt.objects.values_list("state", flat=True)) == {"applied": 3, "pending": 1}


def test_resubscription_anywhere_lifts_nothing() -> None:
    message = MessageFactory(state="sent", stream="marketing")
    call("sendgrid", fixture("sendgrid", "group_unsubscribe", message))
    drain()
    assert Suppression.objects.count() == 1
    call("sendgrid", fixture("sendgrid", "group_resubscribe", message))
    call(
        "ses",
        fixture(
            "ses",
            "event_subscription",
            message,
            {"subscription.newTopicPreferences.unsubscribeAll": False},
        ),
    )
    call("resend", fixture("resend", "contact_updated", message))
    drain()
    assert Suppression.objects.count() == 1


def _number(provider: str, event: Any, number: int) -> None:
    place = event["msys"]["message_event"] if provider == "sparkpost" else event
    place[NUMBERED[provider]] = number if provider == "mailjet" else f"event-{number}"

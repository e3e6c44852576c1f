"""Every provider's backend, through the engine, against a server that answers as it does."""

import json
from email import message_from_bytes
from email.header import decode_header, make_header
from typing import Any
from uuid import UUID

import pytest

from delivery.engine import drain
from delivery.models import Attempt, Message, Sender
from delivery.providers import TRAITS, Traits
from delivery.routes import Route, RouteError, route_of
from tests.delivery import fakeesp
from tests.delivery.fakeesp import ADDRESS, Answer, FakeESP, fake_esp, mail_in
from tests.factories import ContactFactory, MessageFactory, ProviderFactory, SenderFactory

pytestmark = pytest.mark.django_db

NAMES = {kind: [f"TEST_{option}".upper() for option in t.secrets] for kind, t in TRAITS.items()}


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for names in NAMES.values():
        for name in names:
            monkeypatch.setenv(name, f"secret-of-{name}")


def message_through(esp: FakeESP, kind: str, **fields: Any) -> Message:
    provider = ProviderFactory(
        key=kind, backend=kind, api_url=esp.url, secret_env=", ".join(NAMES[kind])
    )
    contact = ContactFactory(email=ADDRESS, email_normalized=ADDRESS)
    return MessageFactory(sender=SenderFactory(provider=provider), contact=contact, **fields)


def deliver() -> Message:
    drain("transactional", budget=5)
    return Message.objects.get()


@pytest.mark.parametrize("kind", TRAITS)
def test_mail_is_taken_and_its_name_there_is_kept(kind: str) -> None:
    with fake_esp(kind) as esp:
        message_through(esp, kind, origin_campaign="welcome")
        message = deliver()
    assert message.state == "sent", message.detail
    # SendGrid names nothing in its answer; Anymail gives the mail a name of its own.
    assert message.esp_id == "esp-1" or (kind == "sendgrid" and UUID(message.esp_id))
    assert esp.ledger == {message.pk: 1}
    ((headers, body),) = esp.requests
    keys = [f"secret-of-{name}" for name in NAMES[kind]]
    # SES signs with its key, Mailgun and Mailjet use HTTP Basic; the others send it in a header.
    if kind not in ("ses", "mailgun", "mailjet"):
        assert keys[0] in " ".join(headers.values())
    assert b"secret-of" not in body


@pytest.mark.parametrize("kind", TRAITS)
@pytest.mark.parametrize("name", ["Größe & Söhne", "株式会社" * 12])
def test_provider_is_told_the_senders_name_as_people_read_it(kind: str, name: str) -> None:
    with fake_esp(kind) as esp:
        message = message_through(esp, kind)
        Sender.objects.filter(pk=message.sender_id).update(name=name, email="shop@example.com")
        assert deliver().state == "sent"
        ((_, body),), (call,) = esp.requests, esp.calls
    if kind == "ses":
        written = message_from_bytes(mail_in(body))["From"]
        assert str(make_header(decode_header(written))) == f"{name} <shop@example.com>"
        return
    said = json.dumps(call, ensure_ascii=False)
    assert name in said
    assert "=?utf-8" not in said


@pytest.mark.parametrize("kind", TRAITS)
@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Answer(400, "no"), "failed"),
        (Answer(401, "no"), "retry"),
        (Answer(429, "slow", {"Retry-After": "30"}), "retry"),
        (Answer(500, "oops"), "unknown"),
        (Answer(502, "<html>bad gateway"), "unknown"),
    ],
    ids=lambda value: str(getattr(value, "status", value)),
)
def test_status_of_each_provider_decides(kind: str, answer: Answer, state: str) -> None:
    if TRAITS[kind].idempotent_seconds and state == "unknown":
        state = "retry"  # and is asked again under the same key
    with fake_esp(kind) as esp:
        esp.script = [answer]
        message_through(esp, kind)
        message = deliver()
    assert message.state == state, message.detail
    # Once: no library repeats a call behind our back.
    assert len(esp.requests) == 1
    assert Attempt.objects.count() == 1


@pytest.mark.parametrize(
    ("kind", "answer", "state", "reason"),
    [
        ("postmark", Answer(422, {"ErrorCode": 406, "Message": "inactive"}), "failed", "refused"),
        ("postmark", Answer(422, {"ErrorCode": 405, "Message": "no credits"}), "retry", ""),
        ("sparkpost", Answer(420, {"errors": [{"message": "Exceed Sending Limit"}]}), "retry", ""),
        ("resend", Answer(429, {"name": "daily_quota_exceeded"}), "retry", ""),
        ("brevo", Answer(400, {"code": "not_enough_credits"}), "retry", ""),
        ("mailgun", Answer(404, {"message": "Domain not found"}), "retry", "sender_refused"),
        # 200, and yet not taken.
        (
            "postal",
            Answer(200, {"status": "error", "data": {"code": "ValidationError"}}),
            "failed",
            "refused",
        ),
        (
            "postal",
            Answer(200, {"status": "error", "data": {"code": "ServerSuspended"}}),
            "retry",
            "",
        ),
        (
            "postal",
            Answer(200, {"status": "error", "data": {"code": "SomethingNew"}}),
            "unknown",
            "outcome_unknown",
        ),
        (
            "postal",
            Answer(200, {"status": "parameter-error", "data": {"message": "?"}}),
            "unknown",
            "outcome_unknown",
        ),
        ("postmark", Answer(200, {"ErrorCode": 999, "Message": "?"}), "unknown", "outcome_unknown"),
        (
            "mailjet",
            Answer(200, {"Messages": [{"Status": "error", "Errors": [{"ErrorCode": "x"}]}]}),
            "failed",
            "refused",
        ),
        (
            "ses",
            Answer(400, {"message": "paused"}, {"x-amzn-ErrorType": "SendingPausedException"}),
            "retry",
            "",
        ),
        (
            "ses",
            Answer(400, {"message": "virus"}, {"x-amzn-ErrorType": "MessageRejected"}),
            "failed",
            "refused",
        ),
        (
            "ses",
            Answer(
                400,
                {
                    "message": "Email address is not verified. The following identities failed "
                    "the check in region US-EAST-1: shop@example.com"
                },
                {"x-amzn-ErrorType": "MessageRejected"},
            ),
            "retry",
            "sender_refused",
        ),
        (
            "ses",
            Answer(400, {"message": "slow"}, {"x-amzn-ErrorType": "TooManyRequestsException"}),
            "retry",
            "",
        ),
    ],
)
def test_what_only_this_provider_says(kind: str, answer: Answer, state: str, reason: str) -> None:
    with fake_esp(kind) as esp:
        esp.script = [answer]
        message_through(esp, kind)
        message = deliver()
    assert (message.state, message.reason) == (state, reason), message.detail
    assert len(esp.requests) == 1


@pytest.mark.parametrize("kind", ["resend", "brevo"])
def test_repeated_call_carries_the_same_key_and_the_same_mail(kind: str) -> None:
    with fake_esp(kind) as esp:
        esp.script = [Answer(500, "oops", takes=True)]
        message_through(esp, kind)
        assert deliver().state == "retry"
        Message.objects.update(due_at=Message.objects.get().created_at)
        message = deliver()
    assert message.state == "sent"
    assert message.replay_until is None
    first, second = esp.requests
    assert first[1] == second[1]
    if kind == "resend":
        assert [h["Idempotency-Key"] for h, _ in esp.requests] == [str(message.pk)] * 2
    else:
        assert json.loads(first[1])["headers"]["idempotencyKey"] == str(message.pk)


def test_secret_that_is_missing_or_one_too_many_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_SECRET_KEY")
    both = ProviderFactory.build(backend="mailjet", secret_env="TEST_API_KEY, TEST_SECRET_KEY")
    with pytest.raises(RouteError, match="TEST_SECRET_KEY is empty"):
        route_of(both)
    with pytest.raises(RouteError, match="2 environment variables have to be named, not 1"):
        route_of(ProviderFactory.build(backend="mailjet", secret_env="TEST_API_KEY"))
    with pytest.raises(RouteError, match="postal needs the URL of its server"):
        route_of(ProviderFactory.build(backend="postal", secret_env="TEST_API_KEY"))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("mailjet", {"Messages": [{"Status": "success"}]}),
        ("mailjet", {"Messages": [{"Status": "success", "To": []}]}),
        ("postal", {"status": "success", "data": {"messages": {}}}),
        ("postmark", {"ErrorCode": 0, "Message": "OK", "To": ""}),
    ],
)
def test_e10_success_that_does_not_name_the_recipient_is_success(kind: str, body: Any) -> None:
    with fake_esp(kind) as esp:
        esp.script = [Answer(200, body, takes=True)]
        message_through(esp, kind)
        message = deliver()
    assert message.state == "sent", message.detail
    assert esp.ledger == {message.pk: 1}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("postal", ""),
        ("postal", '{"status": "suc'),
        ("postal", {}),
        ("mailjet", ""),
        ("mailjet", '{"Messages": [{"Sta'),
        ("mailjet", {}),
        ("mailjet", {"Messages": []}),
        ("mailjet", {"Messages": [{"Status": "queued?"}]}),
        ("mailjet", {"Messages": [{"Status": "error", "Errors": [{"StatusCode": 200}]}]}),
    ],
)
def test_e10_success_is_a_doubt_where_the_body_decides_and_does_not_say_it(
    kind: str, body: Any
) -> None:
    with fake_esp(kind) as esp:
        esp.script = [Answer(200, body)]
        message_through(esp, kind)
        message = deliver()
    assert (message.state, message.esp_id) == ("unknown", "")
    assert len(esp.requests) == 1


@pytest.mark.parametrize("kind", TRAITS)
def test_line_break_behind_a_secret_is_not_part_of_it(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for name in NAMES[kind]:
        monkeypatch.setenv(name, f"secret-of-{name}\n")
    with fake_esp(kind) as esp:
        message_through(esp, kind)
        message = deliver()
    assert message.state == "sent", message.detail


@pytest.mark.parametrize("kind", TRAITS)
@pytest.mark.parametrize("secret", ["“secret”", "sec\u200bret", "sec\r\nX-Evil: ret"])
def test_secret_with_an_odd_character_fails_no_mail_and_is_not_told(
    monkeypatch: pytest.MonkeyPatch, kind: str, secret: str
) -> None:
    for name in NAMES[kind]:
        monkeypatch.setenv(name, secret)
    with fake_esp(kind) as esp:
        message_through(esp, kind)
        message = deliver()
        assert esp.requests == []
    assert (message.state, message.failures) == ("retry", 0), message.detail
    assert NAMES[kind][0] in message.detail
    assert secret not in message.detail


def test_secret_that_is_part_of_another_does_not_leave_its_rest() -> None:
    route = Route(Traits("some.backend"), {"username": "shopmail", "password": "shopmail-2026"})
    assert route.redacted("535 shopmail, shopmail-2026") == "535 ***, ***"


def test_thousands_of_backslashes_are_not_looked_through_from_each_of_them() -> None:
    """It took seconds, and longer than a lease for the mails of a call."""
    route = Route(Traits("some.backend"), {"password": "a-secret"})
    text = "\\" * 20_000
    assert route.redacted(f"{text}a-secret{text}") == "***".join(["", "\\" * 64])


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://email.eu-west-1.amazonaws.com", "eu-west-1"),
        ("", "ap-south-1"),
        ("http://127.0.0.1:1", "ap-south-1"),
    ],
)
def test_region_of_ses_is_that_of_its_url(
    monkeypatch: pytest.MonkeyPatch, url: str, region: str
) -> None:
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    route = route_of(ProviderFactory.build(backend="ses", api_url=url, secret_env=""))
    assert route.options["region_name"] == region


def test_ledger_knows_our_mails() -> None:
    uuid = UUID("01a210ac-5ef5-78e4-8dd2-f91924a4e871")
    MessageFactory(pk=uuid, state="sent")
    with fake_esp() as esp:
        esp.take(f'"Message-ID": "<{uuid}.75fcbe65@example.com>"'.encode())
    assert esp.ledger == {uuid: 1}


@pytest.mark.parametrize("body", [{}, "", "not json", {"MessageId": None}, {"MessageId": 7}])
def test_ses_has_taken_what_it_answers_to_in_whatever_shape(body: Any) -> None:
    with fake_esp("ses") as esp:
        esp.script = [Answer(200, body, takes=True)]
        message_through(esp, "ses")
        message = deliver()
    assert message.state == "sent", message.detail
    assert esp.ledger == {message.pk: 1}


@pytest.mark.parametrize(
    ("backend", "secret", "url"),
    [("smtp", "sk-live-123", ""), ("smtp", "smtp://", ""), ("ses", "", "http://[::1")],
)
def test_nonsense_in_a_providers_row_is_told_and_kills_no_mail(
    monkeypatch: pytest.MonkeyPatch, backend: str, secret: str, url: str
) -> None:
    monkeypatch.setenv("TEST_URL", secret)
    name = "TEST_URL" if secret else ""
    provider = ProviderFactory(key="odd", backend=backend, secret_env=name, api_url=url)
    MessageFactory(sender=SenderFactory(provider=provider))
    message = deliver()
    assert (message.state, message.crashes) == ("retry", 0), message.detail


@pytest.mark.parametrize("kind", ["ses", "postmark"])
@pytest.mark.parametrize("answer", [Answer(503), Answer(500), Answer(do=fakeesp.reset)])
def test_e24_retries_configured_for_a_library_repeat_no_request(
    monkeypatch: pytest.MonkeyPatch, kind: str, answer: Answer
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
    monkeypatch.setenv("AWS_RETRY_MODE", "adaptive")
    monkeypatch.setattr("requests.adapters.DEFAULT_RETRIES", 5)
    with fake_esp(kind) as esp:
        esp.script = [answer] * 6
        message_through(esp, kind)
        deliver()
        assert len(esp.requests) == 1

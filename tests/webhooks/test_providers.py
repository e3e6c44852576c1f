"""What every provider's calls mean, read from payloads as they are documented."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.addresses import Address
from delivery.headers import message_id
from delivery.models import Provider
from delivery.providers import TRAITS
from tests.webhooks.cases import ESP_IDS, FIXTURES, VARIANTS, Meaning
from tests.webhooks.fixtures import UUID_INSIDE, fixture, names
from tests.webhooks.signing import ARRAYS, body_of
from webhooks.feedback import Feedback
from webhooks.providers import ADAPTERS
from webhooks.reading import Malformed

RECEIVED = datetime(2026, 11, 20, 12, tzinfo=UTC)
TOLD = datetime(2026, 11, 20, 10, 4, tzinfo=UTC)
ADA = Address("ada@example.com", "ada@example.com")

ALL = [(provider, name) for provider, cases in FIXTURES.items() for name in cases]
# These are about no mail of ours.
STRANGE = {("resend", "contact_updated"), ("postal", "domain_dns_error")} | {
    ("postal", "incoming_failed")
}
# These tell no time.
TIMELESS = {("ses", f"event_{name}") for name in ("send", "reject", "rendering_failure")}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
BROKEN = (None, "", 0, -1.5, 1e300, True, [], [None], {}, {"a": 1}, "\x00\ud800", "9" * 400)


def read(provider: str, document: Any) -> Feedback:
    """The one thing it says."""
    element = body_of(provider, document)
    if provider in ARRAYS:
        (event,) = ADAPTERS[provider].events({}, element)
        element = event.body
    (feedback,) = ADAPTERS[provider].parse(element, RECEIVED)
    return feedback


def meaning(feedback: Feedback) -> Meaning:
    return feedback.kind.value, feedback.bounce_class.value if feedback.bounce_class else None


def test_every_provider_has_an_adapter_and_every_fixture_an_expectation() -> None:
    backends = set(Provider.Backend.values) - {"configured", "sandbox", "smtp"}
    assert set(ADAPTERS) == backends == set(TRAITS)
    assert set(FIXTURES) == backends - {"postmark"}  # test_postmark
    for provider, cases in FIXTURES.items():
        assert names(provider) == sorted(cases)


@pytest.mark.parametrize(("provider", "name"), ALL)
def test_event_means(provider: str, name: str) -> None:
    feedback = read(provider, fixture(provider, name))
    assert meaning(feedback) == FIXTURES[provider][name]
    assert feedback.source == provider


@pytest.mark.parametrize(("provider", "name", "changes", "expected"), VARIANTS)
def test_changed_event_means(
    provider: str, name: str, changes: dict[str, Any], expected: Meaning
) -> None:
    assert meaning(read(provider, fixture(provider, name, changes=changes))) == expected


@pytest.mark.parametrize(("provider", "name"), sorted(set(ALL) - STRANGE))
def test_event_tells_its_message_its_person_and_its_time(provider: str, name: str) -> None:
    feedback = read(provider, fixture(provider, name))
    own = message_id(UUID_INSIDE, "example.com")
    # MailerSend has a Message-ID of its own and no metadata; its id of the message is all there is.
    assert feedback.message_uuid == (UUID_INSIDE if provider != "mailersend" else None)
    assert feedback.esp_id == ESP_IDS.get(provider, own)
    assert feedback.address == ADA
    assert feedback.at == (RECEIVED if (provider, name) in TIMELESS else TOLD)


@pytest.mark.parametrize(("provider", "name"), sorted(STRANGE))
def test_event_about_no_mail_of_ours_names_none(provider: str, name: str) -> None:
    feedback = read(provider, fixture(provider, name))
    assert (feedback.message_uuid, feedback.esp_id, feedback.address) == (None, "", None)


@pytest.mark.parametrize(
    ("provider", "name", "place"),
    [
        ("ses", "event_delivery", "mail.headers"),
        ("resend", "delivered", "data.headers"),
    ],
)
def test_own_message_id_will_do_without_metadata(provider: str, name: str, place: str) -> None:
    own = message_id(UUID_INSIDE, "example.com")
    changes = {place: [{"name": "Message-ID", "value": own}]}
    assert read(provider, fixture(provider, name, changes=changes)).message_uuid == UUID_INSIDE


@pytest.mark.parametrize("provider", ["postal", "mailgun"])
def test_message_id_of_somebody_else_names_nothing(provider: str) -> None:
    forged = f"{UUID_INSIDE}.00000000@example.com"
    name, changes = {
        "postal": ("message_sent", {"payload.message.message_id": forged}),
        "mailgun": (
            "delivered",
            {
                "event-data.message.headers.message-id": forged,
                "event-data.user-variables": {"message_uuid": "no uuid"},
            },
        ),
    }[provider]
    assert read(provider, fixture(provider, name, changes=changes)).message_uuid is None


def test_ses_tells_of_each_recipient() -> None:
    recipients = [
        {"emailAddress": "ada@example.com", "status": "5.1.1", "diagnosticCode": "550 unknown"},
        {"emailAddress": "Bob <bob@example.com>"},
    ]
    changes = {
        "bounce.bouncedRecipients": recipients,
        "bounce.bounceType": "Transient",
        "bounce.bounceSubType": "General",
        "mail.destination": ["ada@example.com", "bob@example.com"],
    }
    body = body_of("ses", fixture("ses", "event_bounce", changes=changes))
    told = ADAPTERS["ses"].parse(body, RECEIVED)
    assert [feedback.address and feedback.address.email for feedback in told] == [
        "ada@example.com",
        "bob@example.com",
    ]
    assert [meaning(feedback)[1] for feedback in told] == ["soft", "auto_reply"]


@pytest.mark.parametrize(
    ("provider", "name", "field", "value", "expected"),
    [
        ("ses", "event_open", "open.timestamp", "2026-11-20T10:04:00", TOLD),
        ("mailersend", "opened", "data.created_at", "2026-11-20 11:04+01:00", TOLD),
        ("sendgrid", "open", "timestamp", "1795169040", TOLD),
        ("sendgrid", "open", "timestamp", -1, RECEIVED),
        ("mailjet", "open", "time", 10**30, RECEIVED),
        ("brevo", "opened", "ts_epoch", None, RECEIVED),
        ("resend", "opened", "created_at", "soon", RECEIVED),
        ("postal", "message_sent", "timestamp", True, RECEIVED),
    ],
)
def test_time_is_utc_or_else_that_of_receipt(
    provider: str, name: str, field: str, value: Any, expected: datetime
) -> None:
    feedback = read(provider, fixture(provider, name, changes={field: value}))
    assert feedback.at == expected


def leaves(document: Any, path: str = "") -> list[str]:
    """The paths of everything in the document."""
    inside: list[tuple[Any, Any]] = []
    if isinstance(document, dict):
        inside = list(document.items())
    elif isinstance(document, list):
        inside = list(enumerate(document))
    paths = [f"{path}.{key}".strip(".") for key, _ in inside]
    return paths + [leaf for key, value in inside for leaf in leaves(value, f"{path}.{key}")]


@pytest.mark.parametrize(("provider", "name"), ALL)
def test_field_that_is_broken_or_missing_never_raises(provider: str, name: str) -> None:
    for path in leaves(fixture(provider, name)):
        for broken in BROKEN:
            document = fixture(provider, name, changes={path.strip("."): broken})
            for event in ADAPTERS[provider].events(
                {"Svix-Id": "msg_1"}, body_of(provider, document)
            ):
                assert 0 < len(event.id) <= 200
                assert event.id.isascii()
                for feedback in ADAPTERS[provider].parse(event.body, RECEIVED):
                    assert len(feedback.esp_id) <= 200
                    assert "\x00" not in feedback.esp_id + feedback.detail
                    (feedback.esp_id + feedback.detail).encode()
                    assert isinstance(feedback.message_uuid, UUID | None)


@given(st.sampled_from(sorted(ADAPTERS)), JSON | st.binary())
def test_nothing_but_malformed_is_raised(provider: str, document: Any) -> None:
    adapter = ADAPTERS[provider]
    is_raw = isinstance(document, bytes)
    body = document if is_raw else json.dumps(document).encode()
    wrapped = json.dumps({"Message": document}, default=repr).encode()
    for element in (body, b"[" + body + b"]", wrapped):
        try:
            events = adapter.events({"Svix-Id": "msg_1"}, element)
        except Malformed:
            continue
        for event in events:
            assert 0 < len(event.id) <= 200
            try:
                adapter.parse(event.body, RECEIVED)
            except Malformed:
                assert provider in (*ARRAYS, "brevo")

"""Every kind of call Postmark makes, and what it means to us."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from common.addresses import Address
from delivery.bounces import BounceClass
from delivery.headers import message_id
from tests.webhooks.postmark import FIXTURES, payload
from webhooks.classification import POSTMARK
from webhooks.feedback import Feedback, FeedbackKind
from webhooks.providers.postmark import parse

RECEIVED = datetime(2026, 11, 20, 12, tzinfo=UTC)

BOUNCES = {
    "HardBounce": ("bounced", "hard"),
    "BadEmailAddress": ("bounced", "hard"),
    "ManuallyDeactivated": ("bounced", "hard"),
    "AddressChange": ("bounced", "hard"),
    "SoftBounce": ("bounced", "soft"),
    "Transient": ("bounced", "soft"),
    "DnsError": ("bounced", "soft"),
    "Unknown": ("bounced", "soft"),
    "Unconfirmed": ("bounced", "soft"),
    "OpenRelayTest": ("bounced", "soft"),
    "InboundError": ("bounced", "soft"),
    "AutoResponder": ("bounced", "auto_reply"),
    "ChallengeVerification": ("bounced", "auto_reply"),
    "Subscribe": ("bounced", "auto_reply"),
    "Blocked": ("bounced", "block"),
    "SpamNotification": ("bounced", "block"),
    "DMARCPolicy": ("bounced", "auth"),
    "VirusNotification": ("bounced", "content"),
    "TemplateRenderingFailed": ("bounced", "content"),
    "SMTPApiError": ("bounced", "content"),
    "SpamComplaint": ("complained", "complaint"),
    "Unsubscribe": ("unsubscribed", "unsubscribe"),
}
OTHERS = {
    "delivery": ("delivered", None),
    "open": ("opened", None),
    "click": ("clicked", None),
    "spam_complaint": ("complained", None),
    "subscription_change_unsubscribe": ("unsubscribed", "unsubscribe"),
    "subscription_change_hard_bounce": ("bounced", "hard"),
    "subscription_change_complaint": ("complained", "complaint"),
    "subscription_change_by_hand": ("unsubscribed", "unsubscribe"),
    "subscription_change_reactivation": ("other", None),
}
EXPECTED = OTHERS | {f"bounce_{name}": meaning for name, meaning in BOUNCES.items()}


def read(document: dict[str, Any]) -> Feedback:
    (feedback,) = parse(json.dumps(document).encode(), RECEIVED)
    return feedback


def test_every_fixture_and_every_bounce_type_has_an_expectation() -> None:
    assert {path.stem for path in FIXTURES.glob("*.json")} == set(EXPECTED)
    assert set(BOUNCES) == set(POSTMARK)


@pytest.mark.parametrize("name", EXPECTED)
def test_call_means(name: str) -> None:
    feedback = read(payload(name))
    assert (feedback.kind, feedback.bounce_class) == EXPECTED[name]


def test_call_is_read_in_full() -> None:
    assert read(payload("delivery")) == Feedback(
        kind=FeedbackKind.DELIVERED,
        at=datetime(2026, 11, 20, 9, 1, 0, 273539, tzinfo=UTC),
        source="postmark",
        message_uuid=UUID("019ab000-0000-7000-8000-000000000001"),
        esp_id="883953f4-6105-42a2-a16a-77a8eac79483",
        address=Address("ada@example.com", "ada@example.com"),
        detail="smtp;250 2.0.0 OK",
    )


def test_new_bounce_type_is_soft_and_new_record_type_is_other() -> None:
    assert read(payload("bounce_HardBounce", Type="Tired")).bounce_class is BounceClass.SOFT
    assert read(payload("delivery", RecordType="Tomorrow")).kind is FeedbackKind.OTHER
    reason = payload("subscription_change_unsubscribe", SuppressionReason="Tired")
    assert read(reason).kind is FeedbackKind.OTHER


def test_absent_and_null_fields_are_borne() -> None:
    bare = read({"RecordType": "Bounce", "Type": "HardBounce"})
    nulls = dict.fromkeys(payload("bounce_HardBounce"))
    nulls |= {"RecordType": "Bounce", "Type": "HardBounce"}
    assert bare == read(nulls)
    assert (bare.at, bare.message_uuid, bare.esp_id, bare.address) == (RECEIVED, None, "", None)


def test_address_is_compared_in_its_normal_form() -> None:
    feedback = read(payload("bounce_HardBounce", Email="Ada@EXAMPLE.com"))
    assert feedback.address == Address("Ada@example.com", "ada@example.com")


@pytest.mark.parametrize("email", ["", "nobody", "a@b.example, c@d.example", 7])
def test_unusable_address_is_none(email: Any) -> None:
    assert read(payload("bounce_BadEmailAddress", Email=email)).address is None


def test_time_without_a_zone_is_utc() -> None:
    feedback = read(payload("delivery", DeliveredAt="2026-11-20T10:00:00"))
    assert feedback.at == datetime(2026, 11, 20, 10, tzinfo=UTC)


def test_own_message_id_names_the_message() -> None:
    uuid = UUID("019ab000-0000-7000-8000-000000000002")
    own = payload("delivery", Metadata={}, MessageID=message_id(uuid, "example.com"))
    assert read(own).message_uuid == uuid
    assert read(payload("delivery", Metadata={"message_uuid": "no uuid"})).message_uuid is None


def test_detail_can_be_stored() -> None:
    feedback = read(payload("bounce_HardBounce", Details="a\u0000b\ud800" + "x" * 5000))
    assert feedback.detail.startswith("HardBounce · ab?")
    assert len(feedback.detail) == 1000

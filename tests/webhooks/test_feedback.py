"""What feedback does to messages, suppressions and consents."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from common.addresses import parse_address
from contacts.models import Consent, Subscription
from contacts.states import ConsentState
from delivery.bounces import BounceClass
from delivery.models import Message
from suppression.models import Suppression
from tests.factories import MessageFactory, ProviderFactory, TopicFactory
from webhooks.feedback import Feedback, FeedbackKind, apply_feedback

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
TIMES = (
    "delivered_at",
    "opened_at",
    "clicked_at",
    "bounced_at",
    "complained_at",
    "unsubscribed_at",
)


def about(message: Message | None, kind: FeedbackKind, minute: int = 0, **fields: Any) -> Feedback:
    return Feedback(
        kind=kind,
        at=NOON + timedelta(minutes=minute),
        source="postmark",
        message_uuid=message.pk if message is not None else None,
        **fields,
    )


def hard(message: Message | None, minute: int = 0, **fields: Any) -> Feedback:
    return about(message, FeedbackKind.BOUNCED, minute, bounce_class=BounceClass.HARD, **fields)


def marketing_message(**fields: Any) -> Message:
    return MessageFactory(
        **{"stream": "marketing", "topic": TopicFactory(), "state": "sent", **fields}
    )


def times_of(message: Message) -> dict[str, datetime]:
    message.refresh_from_db()
    return {name: getattr(message, name) for name in TIMES if getattr(message, name) is not None}


def suppressed() -> set[tuple[str, str]]:
    return set(Suppression.objects.values_list("scope", "reason"))


def story(message: Message) -> list[Feedback]:
    return [
        about(message, FeedbackKind.DELIVERED, 1),
        about(message, FeedbackKind.OPENED, 2),
        about(message, FeedbackKind.CLICKED, 3),
        hard(message, 4),
        about(message, FeedbackKind.COMPLAINED, 5),
    ]


def end_of(pieces: Iterable[list[Feedback]], message: Message) -> tuple[Any, ...]:
    for piece in pieces:
        apply_feedback(piece)
    message.refresh_from_db()
    row = {f.attname: getattr(message, f.attname) for f in Message._meta.concrete_fields}
    consents = list(Consent.objects.values_list("contact_id", "topic_id", "state"))
    return row, suppressed(), consents


@pytest.mark.parametrize(("state", "every"), [("unknown", 1), ("sent", 7), ("dispatching", 7)])
def test_every_order_ends_the_same(state: str, every: int) -> None:
    reason = "outcome_unknown" if state == "unknown" else ""
    message = marketing_message(state=state)
    ends = []
    for order in list(permutations(range(5)))[::every]:
        Message.objects.update(state=state, reason=reason, sent_at=None, **dict.fromkeys(TIMES))
        for table in (Suppression, Consent, Subscription):
            table.objects.all().delete()
        ends.append(end_of([[story(message)[i]] for i in order], message))
    assert all(end == ends[0] for end in ends)
    row, scopes, consents = ends[0]
    assert [row[name] for name in TIMES[:5]] == [NOON + timedelta(minutes=m) for m in range(1, 6)]
    assert scopes == {("all", "hard_bounce"), ("marketing", "complaint")}
    assert consents == [(message.contact_id, message.topic_id, "withdrawn")]


def test_one_batch_ends_like_one_by_one() -> None:
    first, second = marketing_message(), marketing_message()
    apply_feedback(story(first))
    for piece in reversed(story(second)):
        apply_feedback([piece])
    assert times_of(first) == times_of(second)


def test_earliest_moment_stays() -> None:
    message = MessageFactory(state="sent")
    for minute in (5, 3, 9):
        apply_feedback([about(message, FeedbackKind.OPENED, minute)])
    apply_feedback([about(message, FeedbackKind.OPENED, minute) for minute in (4, 2, 8)])
    assert times_of(message) == {"opened_at": NOON + timedelta(minutes=2)}


@pytest.mark.parametrize(
    "bounce_class",
    [c for c in BounceClass if c not in ("hard", "owner_changed", "complaint", "unsubscribe")],
)
def test_bounce_that_is_not_hard_leaves_address_and_message(bounce_class: BounceClass) -> None:
    message = marketing_message()
    bounce = about(message, FeedbackKind.BOUNCED, bounce_class=bounce_class)
    (outcome,) = apply_feedback([bounce])
    assert outcome == {
        "kind": "bounced",
        "class": bounce_class,
        "message": str(message.pk),
        "effects": [],
    }
    assert times_of(message) == {}
    assert suppressed() == set()


def test_new_owner_of_a_mailbox_has_consented_to_nothing() -> None:
    message = marketing_message()
    bounce = about(message, FeedbackKind.BOUNCED, bounce_class=BounceClass.OWNER_CHANGED)
    (outcome,) = apply_feedback([bounce])
    assert outcome["effects"] == ["bounced_at", "suppressed:all", "withdrawn:news"]


def test_bounce_is_kept_once_per_class_for_its_first_time() -> None:
    message = marketing_message()
    for minute in (5, 3, 9):
        bounce = about(message, FeedbackKind.BOUNCED, minute, bounce_class=BounceClass.SOFT)
        apply_feedback([bounce, bounce])
    apply_feedback([about(message, FeedbackKind.BOUNCED, 1, bounce_class=BounceClass.BLOCK)])
    assert list(message.bounces.order_by("at").values_list("bounce_class", "at")) == [
        ("block", NOON + timedelta(minutes=1)),
        ("soft", NOON + timedelta(minutes=3)),
    ]


@pytest.mark.parametrize(
    ("detail", "bounce_class"),
    [
        ("421 4.7.28 too many mails from your host, rate limited", "throttle"),
        ("temporary · 452 4.2.2 mailbox full", "soft"),
        ("550 5.1.1 no such user", "soft"),  # the provider goes on trying
        ("", "soft"),
    ],
)
def test_mail_that_is_put_off_counts_by_what_the_receiver_said(
    detail: str, bounce_class: str
) -> None:
    message = marketing_message()
    apply_feedback([about(message, FeedbackKind.DEFERRED, detail=detail)])
    assert message.bounces.get().bounce_class == bounce_class
    assert times_of(message) == {}
    assert suppressed() == set()


def test_open_and_click_show_that_somebody_reads() -> None:
    message = marketing_message()
    for kind, minute in ((FeedbackKind.CLICKED, 7), (FeedbackKind.OPENED, 2)):
        apply_feedback([about(message, kind, minute)])
    apply_feedback([about(message, FeedbackKind.DELIVERED, 9)])
    message.contact.refresh_from_db()
    assert message.contact.engaged_at == NOON + timedelta(minutes=7)


def test_complaint_withdraws_the_consent_once() -> None:
    message = marketing_message()
    (outcome,) = apply_feedback([about(message, FeedbackKind.COMPLAINED)])
    apply_feedback([about(message, FeedbackKind.COMPLAINED, 1)])
    assert outcome["effects"] == ["complained_at", "suppressed:marketing", "withdrawn:news"]
    consent = Consent.objects.get()
    assert (consent.contact, consent.topic, consent.state, consent.source) == (
        message.contact,
        message.topic,
        ConsentState.WITHDRAWN,
        "postmark",
    )
    assert Subscription.objects.get().state == ConsentState.WITHDRAWN


def test_complaint_about_transactional_mail_suppresses_marketing_only() -> None:
    apply_feedback([about(MessageFactory(state="sent"), FeedbackKind.COMPLAINED)])
    assert suppressed() == {("marketing", "complaint")}
    assert not Consent.objects.exists()


def test_unsubscribe_is_recorded_in_its_scope() -> None:
    message = marketing_message()
    apply_feedback([about(message, FeedbackKind.UNSUBSCRIBED, scope="topic:news")])
    assert suppressed() == {("topic:news", "unsubscribe")}
    assert times_of(message) == {"unsubscribed_at": NOON}


@pytest.mark.parametrize("kind", list(FeedbackKind))
def test_feedback_about_nothing_known_is_borne(kind: FeedbackKind) -> None:
    feedback = Feedback(
        kind=kind, at=NOON, source="postmark", message_uuid=uuid4(), esp_id="nobody's"
    )
    (outcome,) = apply_feedback([feedback])
    assert outcome["message"] is None
    assert not Suppression.objects.exists()


def test_unknown_message_still_suppresses_the_address() -> None:
    (outcome,) = apply_feedback([hard(None, address=parse_address("Gone@Example.com"))])
    assert outcome["effects"] == ["suppressed:all"]
    assert Suppression.objects.get().email == "Gone@example.com"


def test_hard_bounce_without_a_usable_address_says_so() -> None:
    (outcome,) = apply_feedback([hard(None)])
    assert outcome["effects"] == ["no_address"]


def test_address_of_the_mail_is_suppressed_after_the_contact_moved() -> None:
    message = MessageFactory(state="sent", contact__email="old@example.com")
    message.contact.email = message.contact.email_normalized = "new@example.com"
    message.contact.save()
    apply_feedback([hard(message, address=parse_address("forwarded@example.net"))])
    assert Suppression.objects.get().email == "old@example.com"


@pytest.mark.parametrize("backend", ["postmark", "configured"])
def test_message_is_found_by_the_providers_id(backend: str) -> None:
    provider = ProviderFactory(key=backend, backend=backend)
    message = MessageFactory(state="sent", provider=provider, esp_id="pm-1")
    MessageFactory(
        state="sent", provider=ProviderFactory(key="x", backend="sendgrid"), esp_id="pm-1"
    )
    address = parse_address(message.email)
    told = about(None, FeedbackKind.DELIVERED, esp_id="pm-1", address=address)
    (outcome,) = apply_feedback([told])
    assert outcome["message"] == str(message.pk)


def test_empty_provider_id_finds_nothing() -> None:
    MessageFactory(state="sent", provider=ProviderFactory(backend="postmark"), esp_id="")
    (outcome,) = apply_feedback([about(None, FeedbackKind.DELIVERED)])
    assert outcome["message"] is None


PROOFS = [
    (FeedbackKind.DELIVERED, None),
    (FeedbackKind.OPENED, None),
    (FeedbackKind.CLICKED, None),
    (FeedbackKind.BOUNCED, BounceClass.HARD),
    (FeedbackKind.BOUNCED, BounceClass.SOFT),
    (FeedbackKind.COMPLAINED, None),
]


@pytest.mark.parametrize(("kind", "bounce_class"), PROOFS)
def test_feedback_proves_that_an_unknown_message_was_sent(
    kind: FeedbackKind, bounce_class: BounceClass | None
) -> None:
    message = MessageFactory(
        state="unknown", reason="outcome_unknown", detail="timeout", attempts=1
    )
    feedback = about(message, kind, bounce_class=bounce_class, esp_id="pm-1")
    (outcome,) = apply_feedback([feedback])
    message.refresh_from_db()
    assert (message.state, message.reason, message.detail) == ("sent", "", "")
    assert (message.sent_at, message.esp_id) == (message.handed_over_at, "pm-1")
    assert "sent" in outcome["effects"]


@pytest.mark.parametrize("state", ["queued", "claimed", "retry", "dead", "failed", "held"])
def test_message_that_would_be_sent_again_is_not_once_it_came_back(state: str) -> None:
    message = MessageFactory(state=state, attempts=1, lease_owner="worker")
    apply_feedback([about(message, FeedbackKind.DELIVERED)])
    message.refresh_from_db()
    assert (message.state, message.lease_owner) == ("sent", "")


@pytest.mark.parametrize("kind", [FeedbackKind.UNSUBSCRIBED, FeedbackKind.OTHER])
def test_unsubscribe_proves_nothing(kind: FeedbackKind) -> None:
    message = MessageFactory(state="queued")
    apply_feedback([about(message, kind)])
    message.refresh_from_db()
    assert (message.state, message.sent_at) == ("queued", None)


def test_feedback_before_the_workers_record_leaves_it_the_row() -> None:
    message = MessageFactory(state="dispatching")
    message.refresh_from_db()
    lease = (message.lease_owner, message.lease_until)
    apply_feedback([about(message, FeedbackKind.DELIVERED, esp_id="pm-1")])
    message.refresh_from_db()
    assert (message.lease_owner, message.lease_until) == lease
    assert (message.state, message.sent_at) == ("dispatching", None)
    # What recovery needs, should the worker die now.
    assert (message.delivered_at, message.esp_id) == (NOON, "pm-1")


def test_providers_id_is_kept_once_known() -> None:
    message = MessageFactory(state="sent", esp_id="from the answer")
    apply_feedback([about(message, FeedbackKind.DELIVERED, esp_id="another")])
    message.refresh_from_db()
    assert message.esp_id == "from the answer"


def queries_for(number: int) -> int:
    messages = [marketing_message(state="unknown") for _ in range(number)]
    provider = ProviderFactory(key="pm", backend="postmark")
    strangers = [
        MessageFactory(state="sent", provider=provider, esp_id=str(uuid4())) for _ in range(number)
    ]
    feedback = [piece for message in messages for piece in story(message)]
    feedback += [
        about(None, FeedbackKind.DELIVERED, esp_id=m.esp_id, address=parse_address(m.email))
        for m in strangers
    ]
    feedback += [hard(None, address=parse_address(f"{uuid4()}@example.com")) for _ in messages]
    with CaptureQueriesContext(connection) as queries:
        apply_feedback(feedback)
    return len(queries)


def test_number_of_queries_does_not_depend_on_the_number_of_messages() -> None:
    assert queries_for(1) == queries_for(50)

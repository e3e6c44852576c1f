"""What becomes known about a mail is told onwards, once."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from campaigns import engine
from contacts.models import Contact
from delivery import engine as delivery
from delivery.bounces import BounceClass
from delivery.models import Message
from delivery.states import Stream
from events.models import Event, EventType
from tests.factories import CampaignFactory, ContactFactory, MessageFactory, TopicFactory
from webhooks.feedback import Feedback, FeedbackKind, apply_feedback
from webhooks.kinds import TYPES

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def about(message: Message, kind: FeedbackKind, minute: int = 0, **fields: Any) -> Feedback:
    at = NOON + timedelta(minutes=minute)
    return Feedback(kind=kind, at=at, source="postmark", message_uuid=message.pk, **fields)


def process() -> None:
    while engine.drain(budget=10):
        pass


def inbox() -> list[tuple[str, str]]:
    return list(Event.objects.order_by("pk").values_list("type", "user_id"))


def test_click_becomes_an_event_of_its_person() -> None:
    message = MessageFactory(
        contact__may_track=True,
        state="sent",
        origin_campaign="welcome",
        origin_step="hello",
        topic=TopicFactory(),
    )
    apply_feedback([about(message, FeedbackKind.CLICKED)])
    event = Event.objects.get()
    assert (event.type, event.source) == ("email.clicked", "emailauto:mail")
    assert event.user_id == message.contact.user_id
    assert event.occurred_at == NOON
    assert event.payload == {
        "message_id": str(message.pk),
        "campaign": "welcome",
        "step": "hello",
        "stream": "transactional",
        "topic": "news",
    }


@pytest.mark.parametrize("together", [True, False])
def test_each_thing_is_told_once_however_often_it_comes_back(together: bool) -> None:
    message = MessageFactory(state="sent", contact__may_track=True)
    told = [
        about(message, kind, minute, bounce_class=bounce)
        for minute in (5, 3, 9)
        for kind, bounce in (
            (FeedbackKind.OPENED, None),
            (FeedbackKind.CLICKED, None),
            (FeedbackKind.BOUNCED, BounceClass.SOFT),
            (FeedbackKind.BOUNCED, BounceClass.HARD),
        )
    ]
    for piece in [told] if together else [[item] for item in told]:
        apply_feedback(piece)
    assert sorted(kind for kind, _ in inbox()) == [
        "email.bounced",
        "email.bounced",
        "email.clicked",
        "email.opened",
    ]
    bounces = Event.objects.filter(type="email.bounced").values_list("payload", flat=True)
    assert {(b["class"], b["is_permanent"]) for b in bounces} == {("soft", False), ("hard", True)}


def test_purged_event_is_not_told_again() -> None:
    message = MessageFactory(state="sent", contact__may_track=True)
    apply_feedback([about(message, FeedbackKind.OPENED)])
    Event.objects.all().delete()
    apply_feedback([about(message, FeedbackKind.OPENED)])
    assert inbox() == []


@pytest.mark.parametrize(
    ("kind", "bounce_class"),
    [
        (FeedbackKind.DEFERRED, BounceClass.SOFT),
        (FeedbackKind.REFUSED, BounceClass.THROTTLE),
        (FeedbackKind.OTHER, None),
        (FeedbackKind.DELIVERED, None),  # unless it is asked for
    ],
)
def test_what_decides_nothing_is_not_told(
    kind: FeedbackKind, bounce_class: BounceClass | None
) -> None:
    apply_feedback(
        [
            about(
                MessageFactory(state="sent", contact__may_track=True),
                kind,
                bounce_class=bounce_class,
            )
        ]
    )
    assert inbox() == []


def test_config_file_says_what_is_told(settings: Any) -> None:
    events = type(settings.EMAILAUTO.events)(about_mail=("delivered",))
    settings.EMAILAUTO = _with_events(settings.EMAILAUTO, events)
    message = MessageFactory(state="sent", contact__may_track=True)
    apply_feedback(
        [about(message, kind) for kind in (FeedbackKind.DELIVERED, FeedbackKind.CLICKED)]
    )
    assert [kind for kind, _ in inbox()] == ["email.delivered"]


def _with_events(config: Any, events: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(config, events=events)


def test_person_without_user_id_is_named_by_the_address_of_today() -> None:
    message = MessageFactory(state="sent", contact__user_id=None, contact__may_track=True)
    Contact.objects.update(email="moved@example.com", email_normalized="moved@example.com")
    apply_feedback([about(message, FeedbackKind.OPENED)])
    process()
    event = Event.objects.get()
    assert event.payload["email"] == "moved@example.com"
    assert event.contact_id == message.contact_id
    assert Contact.objects.get().email == "moved@example.com"


def test_address_given_up_is_not_brought_back() -> None:
    message = MessageFactory(state="sent", contact__may_track=True)
    Contact.objects.update(email="moved@example.com", email_normalized="moved@example.com")
    apply_feedback([about(message, FeedbackKind.OPENED)])
    process()
    assert Contact.objects.get().email == "moved@example.com"


def test_rules_can_choose_every_type() -> None:
    assert set(TYPES) <= set(EventType.objects.values_list("name", flat=True))


def test_click_starts_a_campaign() -> None:
    CampaignFactory(rule={"event_type": EventType.objects.get(name="email.clicked")})
    message = MessageFactory(state="sent", contact__may_track=True)
    apply_feedback([about(message, FeedbackKind.CLICKED)])
    Event.objects.update(received_at=NOON)  # not late
    process()
    answer = Message.objects.exclude(pk=message.pk).get()
    assert (answer.contact_id, answer.depth) == (message.contact_id, 1)


def test_mail_about_mail_about_mail_comes_to_an_end() -> None:
    """A campaign that answers every bounce by mail, to somebody whose mail bounces."""
    CampaignFactory(rule={"event_type": EventType.objects.get(name="email.bounced")})
    message = MessageFactory(state="sent", contact__may_track=True)
    for _ in range(10):
        apply_feedback([about(message, FeedbackKind.BOUNCED, bounce_class=BounceClass.CONTENT)])
        Event.objects.update(received_at=NOON)
        process()
        delivery.drain(Stream.MARKETING, budget=10)
        message = Message.objects.order_by("-depth")[0]
    assert [m.depth for m in Message.objects.order_by("depth")] == [0, 1, 2, 3, 4, 5]
    last = Event.objects.order_by("-pk")[0]
    assert (last.state, last.reason) == ("ignored", "loop")


def test_depth_of_somebody_elses_event_is_not_believed() -> None:
    CampaignFactory()
    contact = ContactFactory()
    Event.objects.create(
        event_id="e1",
        type="UserSignedUp",
        user_id=contact.user_id,
        occurred_at=NOON,
        received_at=NOON,
        metadata={"depth": 99},
        body_hash=b"x" * 32,
    )
    process()
    assert Message.objects.get().depth == 0

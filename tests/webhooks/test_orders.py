"""Whatever comes back about a mail, and in whatever order: the end is the same."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from django.db import connection
from django.utils.timezone import now

from contacts.models import Consent
from delivery.bounces import BounceClass
from delivery.models import Bounce, Message
from events.models import Event
from suppression.models import Suppression
from tests.factories import ContactFactory, MessageFactory, TopicFactory
from webhooks.feedback import Feedback, FeedbackKind, apply_feedback
from webhooks.matching import MOMENTS
from webhooks.services import BATCH

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
EVERYTHING = (
    FeedbackKind.DELIVERED,
    FeedbackKind.OPENED,
    FeedbackKind.CLICKED,
    FeedbackKind.DEFERRED,
    FeedbackKind.BOUNCED,
    FeedbackKind.COMPLAINED,
    FeedbackKind.UNSUBSCRIBED,
)


def feedback(message: Message, kind: FeedbackKind, *, again: bool) -> Feedback:
    hour = list(FeedbackKind).index(kind)
    return Feedback(
        kind=kind,
        at=NOON + timedelta(hours=hour, minutes=10 * again),
        source="postmark",
        message_uuid=message.pk,
        bounce_class=BounceClass.HARD if kind is FeedbackKind.BOUNCED else None,
        detail="450 4.2.0 try again later" if kind is FeedbackKind.DEFERRED else "",
    )


def end_of(message: Message) -> tuple[object, ...]:
    """All that feedback can change about a message and its person."""
    row = Message.objects.select_related("contact").get(pk=message.pk)
    return (
        row.state,
        *(getattr(row, column) for column in MOMENTS.values()),
        row.contact.engaged_at,
    )


@pytest.mark.parametrize(
    ("state", "every", "times"), [("sent", 1, 1), ("unknown", 23, 2), ("dispatching", 23, 2)]
)
def test_every_order_of_everything_ends_the_same(state: str, every: int, times: int) -> None:
    """All 5,040 orders, or some of them with every piece told twice; one message each, told one
    piece at a time."""
    orders = list(permutations(EVERYTHING))[::every]
    topic = TopicFactory()
    first = MessageFactory(
        stream="marketing", topic=topic, state=state, sent_at=NOON, contact__may_track=True
    )
    messages = [first]
    for _ in orders[1:]:
        contact = ContactFactory.build(may_track=True)
        messages.append(MessageFactory.build(contact=contact, **_same(first)))
    contacts = type(first.contact).objects.bulk_create([m.contact for m in messages[1:]])
    for message, contact in zip(messages[1:], contacts, strict=True):
        message.contact, message.email = contact, contact.email
        message.email_normalized = contact.email_normalized or ""
    Message.objects.bulk_create(messages[1:])
    with connection.cursor() as cursor:
        # As autovacuum does within a minute; without, everything is looked for in everything.
        cursor.execute("ANALYZE delivery_message, contacts_contact")
    for step in range(len(EVERYTHING)):
        told = [
            feedback(message, order[step], again=again)
            for again in (True, False)[-times:]
            for message, order in zip(messages, orders, strict=True)
        ]
        for start in range(0, len(told), BATCH):
            apply_feedback(told[start : start + BATCH])
    ends = {end_of(message) for message in messages}
    assert len(ends) == 1
    (end,) = ends
    assert end[0] == ("dispatching" if state == "dispatching" else "sent")
    assert None not in end
    # Once each, for each of them.
    count = len(messages)
    assert Suppression.objects.filter(scope="all", reason="hard_bounce").count() == count
    assert Suppression.objects.filter(scope="marketing", reason="complaint").count() == count
    assert Suppression.objects.count() == 2 * count
    for purpose in ("mail", "marketing"):
        assert Consent.objects.filter(purpose=purpose, state="withdrawn").count() == count
    assert Bounce.objects.values("message").distinct().count() == count
    assert Bounce.objects.count() == 2 * count  # the deferral and the bounce
    assert Event.objects.filter(type__startswith="email.").count() == 5 * count
    assert Event.objects.values("type", "user_id").distinct().count() == 5 * count


def _same(first: Message) -> dict[str, object]:
    names = ("stream", "topic", "state", "template_version", "sender", "provider", "sent_at")
    leased = {"lease_until": now() + timedelta(minutes=1)} if first.lease_owner else {}
    return {
        **{name: getattr(first, name) for name in names},
        "handed_over_at": NOON,
        "due_at": NOON,
        **leased,
    }

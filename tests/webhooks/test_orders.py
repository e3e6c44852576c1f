"""Whatever comes back about a mail, and in whatever order: the end is the same."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from django.db import connection
from django.utils.timezone import now

from contacts.models import Consent
from delivery.bounces import BounceClass
from delivery.models import Attempt, Bounce, Message
from delivery.services import replay_messages
from delivery.states import MessageState
from delivery.transitions import Settled, claim, settle
from events.models import Event
from suppression.models import Suppression
from tests.factories import ContactFactory, MessageFactory, ProviderFactory, TopicFactory
from webhooks.feedback import Feedback, FeedbackKind, apply_feedback
from webhooks.matching import MOMENTS
from webhooks.services import BATCH

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
CLASSES = {
    FeedbackKind.BOUNCED: BounceClass.HARD,
    FeedbackKind.REJECTED: BounceClass.CONTENT,
}
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
        bounce_class=CLASSES.get(kind),
        detail="450 4.2.0 try again later" if kind is FeedbackKind.DEFERRED else "",
    )


def end_of(message: Message) -> tuple[object, ...]:
    """All that feedback can change about a message and its person."""
    row = Message.objects.select_related("contact").get(pk=message.pk)
    return (
        row.state,
        *(getattr(row, column) for kind, column in MOMENTS.items() if kind in EVERYTHING),
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
    first = MessageFactory(stream="marketing", topic=topic, state=state, sent_at=NOON)
    messages = [first]
    for _ in orders[1:]:
        contact = ContactFactory.build()
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
    assert Consent.objects.filter(state="withdrawn").count() == count
    assert Bounce.objects.values("message").distinct().count() == count
    assert Bounce.objects.count() == 2 * count  # the deferral and the bounce
    assert Event.objects.filter(type__startswith="email.").count() == 5 * count
    assert Event.objects.values("type", "user_id").distinct().count() == 5 * count


TAKEN = (FeedbackKind.ACCEPTED, FeedbackKind.DEFERRED)


@pytest.mark.parametrize("state", ["sent", "unknown", "dispatching", "queued", "claimed"])
@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ((), "failed"),
        ((FeedbackKind.UNSUBSCRIBED,), "failed"),
        ((FeedbackKind.DELIVERED,), "sent"),
        ((FeedbackKind.COMPLAINED,), "sent"),
        ((FeedbackKind.BOUNCED,), "sent"),
    ],
)
def test_mail_its_provider_rejected_has_failed_in_every_order_unless_it_arrived(
    state: str, more: tuple[FeedbackKind, ...], expected: str
) -> None:
    """That the provider took it says nothing against that it did not send it."""
    ends = set()
    for order in permutations((*TAKEN, FeedbackKind.REJECTED, *more)):
        message = MessageFactory(state=state, attempts=1, sent_at=NOON if state == "sent" else None)
        Attempt.objects.get_or_create(
            message=message,
            number=1,
            defaults={"provider": ProviderFactory(), "verdict": "accepted"},
        )
        for kind in order:
            apply_feedback([feedback(message, kind, again=False)])
        if state == "dispatching":
            settle([Settled(message.pk, 1, MessageState.SENT, esp_id="late")])
        message.refresh_from_db()
        assert message.rejected_at is not None
        ends.add((message.state, message.reason, message.sent_at is None, message.lease_owner))
    is_failed = expected == "failed"
    assert ends == {(expected, "refused" if is_failed else "", is_failed, "")}


@pytest.mark.parametrize("again", [False, True])
def test_rejected_mail_leaves_once_more_only_when_somebody_says_so(again: bool) -> None:
    message = MessageFactory(state="sent", esp_id="m-1")
    apply_feedback([feedback(message, FeedbackKind.REJECTED, again=False)])
    assert set(Bounce.objects.values_list("bounce_class", flat=True)) == {"content"}
    assert not Suppression.objects.exists()
    if again:
        assert replay_messages([message.pk]) == 1
    taken = claim("transactional", owner="worker", lease_seconds=60, limit=5, crashed=False)
    assert [one.pk for one in taken] == ([message.pk] if again else [])
    message.refresh_from_db()
    assert message.state == ("claimed" if again else "failed")


def _same(first: Message) -> dict[str, object]:
    names = ("stream", "topic", "state", "template_version", "sender", "provider", "sent_at")
    leased = {"lease_until": now() + timedelta(minutes=1)} if first.lease_owner else {}
    return {
        **{name: getattr(first, name) for name in names},
        "handed_over_at": NOON,
        "due_at": NOON,
        **leased,
    }

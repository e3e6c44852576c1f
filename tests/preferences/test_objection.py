"""No to all marketing is the person's, not the address's (GDPR 21(2)): it goes with them when an
event brings another address, and only they take it back."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from campaigns import engine
from common.addresses import parse_address
from common.clock import now
from contacts.ledger import Objection, record_objections
from contacts.models import Consent, Contact, Subscription, Topic
from contacts.services import record_consent
from contacts.states import ConsentState, TopicPolicy
from delivery.engine import deliver_batch
from delivery.links import CONFIRM, PREFERENCES, UNSUBSCRIBE
from delivery.models import Message
from delivery.states import Stream
from events.services import submit
from preferences.optin import Answer, Application, subscribe
from suppression.models import Suppression
from tests.factories import (
    ContactFactory,
    EventTypeFactory,
    MessageFactory,
    SenderFactory,
    TemplateFactory,
    TopicFactory,
    event_in,
)
from tests.preferences.pages import get, post
from webhooks.feedback import Feedback, FeedbackKind, apply_feedback

pytestmark = pytest.mark.django_db

OLD, NEW = "ada@example.com", "ada@new.example"


@pytest.fixture
def message() -> Message:
    """A mail about news. She has agreed to tips; nobody has to agree to carts."""
    SenderFactory(is_default=True)
    EventTypeFactory()
    message = MessageFactory(
        stream="marketing",
        topic=TopicFactory(key="news", name="News"),
        state="sent",
        contact__email=OLD,
        contact__user_id="u1",
    )
    tips = TopicFactory(key="tips", name="Tips", policy=TopicPolicy.OPT_IN)
    TopicFactory(key="carts", name="Carts", policy=TopicPolicy.OPT_OUT)
    record_consent(message.contact, tips, ConsentState.GRANTED, source="form")
    return message


def one_click(message: Message) -> None:
    post(message, UNSUBSCRIBE, {"List-Unsubscribe": "One-Click"})


def page_of_the_mail(message: Message) -> None:
    post(message, UNSUBSCRIBE, {"scope": "all"})


def everything_off(message: Message) -> None:
    post(message, PREFERENCES, {"stop": "all"})


def said_by_the_provider(message: Message, kind: FeedbackKind) -> None:
    apply_feedback([Feedback(kind=kind, at=now(), source="postmark", message_uuid=message.pk)])


def complaint(message: Message) -> None:
    said_by_the_provider(message, FeedbackKind.COMPLAINED)


def unsubscribe_at_the_provider(message: Message) -> None:
    said_by_the_provider(message, FeedbackKind.UNSUBSCRIBED)


def complaint_that_names_the_address_only(message: Message) -> None:
    address = parse_address(OLD)
    kind = FeedbackKind.COMPLAINED
    apply_feedback([Feedback(kind=kind, at=now(), source="brevo", address=address)])


WAYS = [
    *(one_click, page_of_the_mail, everything_off, complaint, unsubscribe_at_the_provider),
    complaint_that_names_the_address_only,
]


def move(address: str = NEW) -> None:
    """The shop's next event brings another address."""
    submit(
        [event_in(f"moves to {address}", user_id="u1", payload={"email": address, "name": "Ada"})]
    )
    while engine.drain(budget=10):
        pass
    assert Contact.objects.get().email == address


def outcome_of(topic: str | None, stream: str = "marketing") -> tuple[str, str]:
    contact = Contact.objects.get()
    message = MessageFactory(
        contact=contact,
        stream=stream,
        topic=Topic.objects.filter(key=topic).first(),
        template_version=TemplateFactory().published,
    )
    for each in Stream.values:
        while deliver_batch(each, limit=50):
            pass
    message.refresh_from_db()
    return message.state, message.reason


def marketing_lines() -> list[tuple[str, str]]:
    rows = Consent.objects.filter(purpose="marketing").order_by("pk")
    return list(rows.values_list("state", "source"))


@pytest.mark.parametrize("say_no", WAYS)
def test_no_to_everything_survives_a_new_address(
    message: Message, say_no: Callable[[Message], None]
) -> None:
    say_no(message)
    move()
    states = {outcome_of(topic) for topic in ("news", "tips", "carts")}
    assert {state for state, _ in states} == {"skipped"}
    assert outcome_of("carts") == ("skipped", "objected")
    assert outcome_of(None, "transactional") == ("sent", "")
    assert [state for state, _ in marketing_lines()] == ["withdrawn"]


def test_no_to_one_topic_is_no_to_that_topic(message: Message) -> None:
    post(message, UNSUBSCRIBE, {"scope": "topic"})
    move()
    assert outcome_of("news") == ("skipped", "consent_withdrawn")
    assert outcome_of("tips") == outcome_of("carts") == ("sent", "")
    assert marketing_lines() == []


@pytest.mark.parametrize("say_no", [one_click, page_of_the_mail, everything_off])
def test_no_from_an_address_they_have_left_counts_for_both(
    message: Message, say_no: Callable[[Message], None]
) -> None:
    move()
    message.refresh_from_db()
    say_no(message)
    marketing = Suppression.objects.filter(scope="marketing", reason="unsubscribe")
    assert set(marketing.values_list("email", flat=True)) == {OLD, NEW}
    assert {outcome_of(topic)[0] for topic in ("news", "tips", "carts")} == {"skipped"}
    move("ada@third.example")
    assert outcome_of("carts") == ("skipped", "objected")


def test_page_shows_everything_off_after_the_move(message: Message) -> None:
    one_click(message)
    move()
    newer = MessageFactory(contact=Contact.objects.get(), stream="transactional", state="sent")
    assert " checked" not in get(newer, PREFERENCES).content.decode()


def test_own_tick_takes_it_back_for_that_topic_alone(message: Message) -> None:
    one_click(message)
    move()
    newer = MessageFactory(contact=Contact.objects.get(), stream="transactional", state="sent")
    post(newer, PREFERENCES, {"form": "preferences", "topic": ["news"]})
    assert marketing_lines() == [("withdrawn", "one-click"), ("granted", "preferences page")]
    assert outcome_of("news") == ("sent", "")
    assert outcome_of("tips")[1] == "consent_withdrawn"
    assert outcome_of("carts")[1] == "consent_withdrawn"


def test_saving_without_a_new_tick_does_not_take_it_back(message: Message) -> None:
    one_click(message)
    move()
    newer = MessageFactory(contact=Contact.objects.get(), stream="transactional", state="sent")
    post(newer, PREFERENCES, {"form": "preferences", "topic": [], "weekly_limit": "5"})
    assert outcome_of("carts") == ("skipped", "objected")


def test_what_a_form_reports_does_not_take_it_back_but_what_they_confirm_does(
    message: Message,
) -> None:
    one_click(message)
    move()
    plain = TopicFactory(key="plain")
    asked = TopicFactory(key="asked", double_opt_in=True)
    address = parse_address(NEW)
    assert subscribe(Application(address, "u1", plain, "form")) is Answer.SUPPRESSED
    assert outcome_of("plain") == ("skipped", "objected")
    assert subscribe(Application(address, "u1", asked, "form")) is Answer.PENDING
    post(Message.objects.get(context__action=CONFIRM), CONFIRM, {})
    assert outcome_of("asked") == ("sent", "")
    assert outcome_of("carts")[0] == outcome_of("plain")[0] == "skipped"


def test_consent_recorded_by_hand_does_not_take_it_back(message: Message) -> None:
    one_click(message)
    move()
    contact, carts = Contact.objects.get(), Topic.objects.get(key="carts")
    record_consent(contact, carts, ConsentState.GRANTED, source="admin: root")
    assert outcome_of("carts") == ("skipped", "objected")


def test_saying_it_twice_is_one_line(message: Message) -> None:
    for say_no in WAYS:
        say_no(message)
    assert marketing_lines() == [("withdrawn", "one-click")]


@pytest.mark.parametrize("named", ["message", "address"])
def test_old_news_does_not_bring_back_what_they_took_back(message: Message, named: str) -> None:
    known_at = now()
    one_click(message)
    post(message, PREFERENCES, {"form": "preferences", "topic": ["news"]})
    about: dict[str, Any] = (
        {"message_uuid": message.pk} if named == "message" else {"address": parse_address(OLD)}
    )
    kind = FeedbackKind.UNSUBSCRIBED
    apply_feedback([Feedback(kind=kind, at=known_at, source="brevo", known_at=known_at, **about)])
    assert [state for state, _ in marketing_lines()] == ["withdrawn", "granted"]
    assert outcome_of("news") == ("sent", "")


def test_nothing_is_written_of_somebody_who_was_erased(message: Message) -> None:
    Contact.objects.update(erased_at=now(), is_active=False, email="", email_normalized=None)
    record_objections([Objection(message.contact_id, "test")])
    assert marketing_lines() == []
    assert Contact.objects.get().objected_at is None


@pytest.mark.parametrize("named", ["message", "address"])
def test_number_of_queries_does_not_depend_on_how_many_object(named: str) -> None:
    counts = []
    for size in (2, 1, 50):  # the first fills what is kept of the configuration
        people = [ContactFactory(email=f"p{size}-{n}@example.com") for n in range(size)]
        mails = [MessageFactory(contact=person, stream="marketing") for person in people]
        told: list[dict[str, Any]] = [
            {"message_uuid": mail.pk} if named == "message" else {"address": parse_address(p.email)}
            for mail, p in zip(mails, people, strict=True)
        ]
        with CaptureQueriesContext(connection) as queries:
            apply_feedback(
                [
                    Feedback(kind=FeedbackKind.UNSUBSCRIBED, at=now(), source="test", **one)
                    for one in told
                ]
            )
        counts.append(len(queries))
        assert Contact.objects.filter(objected_at__isnull=False).count() == size
        Contact.objects.update(objected_at=None)
    assert counts[1] == counts[2]


def test_ledger_and_column_say_the_same(message: Message) -> None:
    one_click(message)
    assert Contact.objects.get().objected_at is not None
    post(message, PREFERENCES, {"form": "preferences", "topic": ["carts"]})
    assert Contact.objects.get().objected_at is None
    assert [state for state, _ in marketing_lines()] == ["withdrawn", "granted"]
    assert dict(Subscription.objects.values_list("topic__key", "state")) == {
        "carts": "granted",
        "news": "withdrawn",
        "tips": "withdrawn",
    }

"""What people want of marketing mail, kept by the gate: pauses, limits, unconfirmed consent."""

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from common.clock import now
from contacts.models import Contact
from contacts.services import record_consent
from contacts.states import ConsentState, TopicPolicy
from content.services import published_versions
from delivery.engine import deliver_batch
from delivery.models import Message, SandboxMail
from delivery.states import Stream
from tests.factories import ContactFactory, MessageFactory, TemplateFactory, TopicFactory

pytestmark = pytest.mark.django_db


def mail(contact: Contact, count: int = 1, **fields: object) -> list[Message]:
    values = {"stream": "marketing", "topic": TopicFactory(), "contact": contact, **fields}
    template = TemplateFactory()
    return [MessageFactory(template_version=template.published, **values) for _ in range(count)]


def outcome() -> list[tuple[str, str]]:
    return sorted(Message.objects.values_list("state", "reason"))


def deliver() -> None:
    for stream in Stream.values:
        while deliver_batch(stream, limit=50):
            pass


@pytest.mark.parametrize(
    ("days", "stream", "expected"),
    [
        (1, "marketing", ("skipped", "paused")),
        (-1, "marketing", ("sent", "")),
        (1, "transactional", ("sent", "")),
    ],
)
def test_pause_skips_marketing_mail_until_it_is_over(
    days: int, stream: str, expected: tuple[str, str]
) -> None:
    mail(ContactFactory(paused_until=now() + timedelta(days=days)), stream=stream)
    deliver()
    assert outcome() == [expected]


def test_weekly_limit_lets_so_many_of_a_batch_pass() -> None:
    mail(ContactFactory(weekly_limit=2), 5)
    mail(ContactFactory(), 3)
    deliver()
    assert outcome() == 5 * [("sent", "")] + 3 * [("skipped", "weekly_limit")]
    assert Message.objects.filter(reason="weekly_limit").first().detail == "at most 2"


def test_weekly_limit_counts_seven_days_and_marketing_mail_alone() -> None:
    contact = ContactFactory(weekly_limit=1)
    mail(contact, state="sent", handed_over_at=now() - timedelta(days=7, hours=1))
    mail(contact, state="sent", stream="transactional")
    mail(contact, state="failed", reason="refused")
    mail(contact)
    deliver()
    assert ("skipped", "weekly_limit") not in outcome()
    mail(contact)
    mail(contact, stream="transactional")
    deliver()
    assert outcome().count(("skipped", "weekly_limit")) == 1
    assert SandboxMail.objects.count() == 2


def test_what_may_have_been_taken_counts() -> None:
    contact = ContactFactory(weekly_limit=1)
    mail(contact, state="unknown")
    mail(contact)
    deliver()
    assert outcome() == [("skipped", "weekly_limit"), ("unknown", "outcome_unknown")]


@pytest.mark.django_db(transaction=True)
def test_weekly_limit_is_exact_with_workers_racing() -> None:
    contacts = [ContactFactory(weekly_limit=3) for _ in range(4)]
    for contact in contacts:
        mail(contact, 12)
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        while deliver_batch(Stream.MARKETING, limit=3):
            pass
        connection.close()

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for contact in contacts:
        sent = SandboxMail.objects.filter(message__contact=contact).count()
        assert sent == 3
    assert outcome() == 12 * [("sent", "")] + 36 * [("skipped", "weekly_limit")]


@pytest.mark.parametrize("policy", list(TopicPolicy))
def test_consent_that_was_not_confirmed_is_none(policy: TopicPolicy) -> None:
    contact = ContactFactory()
    topic = TopicFactory(policy=policy)
    record_consent(contact, topic, ConsentState.PENDING, source="form")
    mail(contact, topic=topic)
    deliver()
    assert outcome() == [("skipped", "consent_pending")]


def test_number_of_queries_with_limits_is_the_same_for_1_and_50_messages() -> None:
    topic, template = TopicFactory(), TemplateFactory()
    published_versions({template.published_id})  # read once per process
    counts = []
    for size in (1, 50):
        for _ in range(size):
            MessageFactory(
                stream=Stream.MARKETING,
                topic=topic,
                template_version=template.published,
                contact__weekly_limit=3,
            )
        with CaptureQueriesContext(connection) as queries:
            deliver_batch(Stream.MARKETING, limit=50)
        counts.append(len(queries))
    assert counts[0] == counts[1]
    assert SandboxMail.objects.count() == 51

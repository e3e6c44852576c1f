"""Delivery: due messages in, mails out, every outcome recorded."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pkgutil import resolve_name
from typing import Any

import pytest
from django.db import DataError, OperationalError, connection, transaction
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from common.addresses import address_hash, parse_address
from common.valkey import redis_client
from contacts.models import Contact
from contacts.services import record_consent
from contacts.states import ConsentState, TopicPolicy
from content.services import published_versions
from delivery import recovery, transitions
from delivery.engine import deliver_batch, drain
from delivery.models import Attempt, Message, SandboxMail, Sender, Switch
from delivery.services import replay_messages, resume_sending, stop_sending
from delivery.statements import MAX_CRASHES
from delivery.states import Stream
from suppression.services import SuppressionRequest, lock_addresses, suppress_addresses
from suppression.states import SuppressionReason
from tests.factories import (
    MessageFactory,
    ProviderFactory,
    SenderFactory,
    TemplateFactory,
    TopicFactory,
)
from tests.outage import disk_full, drop_database_connection

pytestmark = pytest.mark.django_db


def deliver() -> None:
    for stream in Stream:
        while drain(stream.value, budget=10):
            pass


def suppress(email: str, scope: str) -> None:
    address = parse_address(email)
    request = SuppressionRequest(address, scope, SuppressionReason.MANUAL, "test")
    suppress_addresses([request])


def states(**filters: Any) -> list[tuple[str, str]]:
    return list(Message.objects.filter(**filters).values_list("state", "reason"))


def test_due_message_lands_in_the_inbox_once_and_is_sent() -> None:
    message = MessageFactory()
    deliver()
    deliver()
    mail = SandboxMail.objects.get()
    message.refresh_from_db()
    assert (message.state, message.attempts) == ("sent", 1)
    assert message.sent_at is not None
    assert mail.message_id == message.pk
    assert mail.to_email == message.contact.email
    assert Attempt.objects.get().verdict == "accepted"


def test_message_due_later_stays(settings: Any) -> None:
    message = MessageFactory()
    Message.objects.update(due_at=message.created_at + timedelta(hours=1))
    deliver()
    assert states() == [("queued", "")]


def test_marketing_mail_carries_the_bulk_headers() -> None:
    MessageFactory(stream=Stream.MARKETING, topic=TopicFactory(), origin_campaign="welcome")
    deliver()
    raw = bytes(SandboxMail.objects.get().raw).decode()
    headers = " ".join(raw.partition("\r\n\r\n")[0].replace("\r\n ", " ").split())
    assert "List-Unsubscribe: <http" in headers
    assert "/u/" in headers
    assert "List-Unsubscribe-Post: List-Unsubscribe=One-Click" in headers
    assert "List-ID: News <news.example.com>" in headers
    assert "Feedback-ID: welcome:marketing:example.com" in headers
    assert "Auto-Submitted: auto-generated" in headers


def test_transactional_mail_has_no_way_out_to_follow() -> None:
    MessageFactory(stream=Stream.TRANSACTIONAL)
    deliver()
    assert b"List-Unsubscribe" not in bytes(SandboxMail.objects.get().raw)


@pytest.mark.parametrize(
    ("stream", "scope", "expected"),
    [
        (Stream.MARKETING, "all", ("skipped", "suppressed")),
        (Stream.MARKETING, "marketing", ("skipped", "suppressed")),
        (Stream.MARKETING, "topic:news", ("skipped", "suppressed")),
        (Stream.MARKETING, "topic:other", ("sent", "")),
        (Stream.TRANSACTIONAL, "all", ("skipped", "suppressed")),
        (Stream.TRANSACTIONAL, "marketing", ("sent", "")),
    ],
)
def test_gate_obeys_the_scope_of_a_suppression(
    stream: Stream, scope: str, expected: tuple[str, str]
) -> None:
    message = MessageFactory(stream=stream, topic=TopicFactory())
    suppress(message.email.upper(), scope)
    deliver()
    assert states() == [expected]


@pytest.mark.parametrize(
    ("policy", "said", "expected"),
    [
        (TopicPolicy.OPT_IN, None, ("skipped", "consent_missing")),
        (TopicPolicy.OPT_IN, ConsentState.GRANTED, ("sent", "")),
        (TopicPolicy.OPT_IN, ConsentState.WITHDRAWN, ("skipped", "consent_withdrawn")),
        (TopicPolicy.OPT_OUT, None, ("sent", "")),
        (TopicPolicy.OPT_OUT, ConsentState.WITHDRAWN, ("skipped", "consent_withdrawn")),
    ],
)
def test_gate_obeys_the_topics_consent(
    policy: TopicPolicy, said: ConsentState | None, expected: tuple[str, str]
) -> None:
    topic = TopicFactory(key="asked", policy=policy)
    message = MessageFactory(stream=Stream.MARKETING, topic=topic)
    if said is not None:
        record_consent(message.contact, topic, said, source="test")
    deliver()
    assert states() == [expected]


def test_marketing_mail_without_topic_is_skipped() -> None:
    MessageFactory(stream=Stream.MARKETING, topic=None)
    deliver()
    assert states() == [("skipped", "no_topic")]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"is_active": False}, ("skipped", "contact_inactive")),
        ({"email": "", "email_normalized": None}, ("skipped", "no_address")),
        (
            {"email": "ü@example.com", "email_normalized": "ü@example.com"},
            ("skipped", "needs_smtputf8"),
        ),
    ],
)
def test_gate_refuses_unreachable_contact(
    change: dict[str, Any], expected: tuple[str, str]
) -> None:
    message = MessageFactory()
    Contact.objects.filter(pk=message.contact_id).update(**change)
    deliver()
    assert states() == [expected]


def test_message_goes_to_the_address_the_contact_has_now() -> None:
    message = MessageFactory()
    new = {"email": "new@example.com", "email_normalized": "new@example.com"}
    Contact.objects.filter(pk=message.contact_id).update(**new)
    deliver()
    assert SandboxMail.objects.get().to_email == "new@example.com"
    assert Message.objects.get().email == "new@example.com"


def test_kill_switch_holds_and_releases() -> None:
    MessageFactory()
    stop_sending(Switch.Target.EVERYTHING)
    deliver()
    assert states() == [("held", "kill_switch")]
    assert resume_sending(Switch.Target.EVERYTHING) == 1
    deliver()
    assert states() == [("sent", "")]


def test_switch_of_another_campaign_holds_nothing() -> None:
    MessageFactory(origin_campaign="welcome")
    stop_sending(Switch.Target.CAMPAIGN, "other")
    deliver()
    assert states() == [("sent", "")]


def test_inactive_provider_and_missing_sender_hold() -> None:
    provider = ProviderFactory(key="off", is_active=False)
    MessageFactory(sender__provider=provider, dedupe_key="a")
    MessageFactory(sender=None, dedupe_key="b")
    deliver()
    assert dict(Message.objects.values_list("dedupe_key", "reason")) == {
        "a": "no_provider",
        "b": "no_sender",
    }


def test_template_that_cannot_be_rendered_fails_its_message_only() -> None:
    broken = TemplateFactory(version__html="{% for x in (1..100000000) %}{{ x }}{% endfor %}")
    MessageFactory(template_version=broken.published, dedupe_key="broken")
    MessageFactory(dedupe_key="fine")
    deliver()
    assert dict(Message.objects.values_list("dedupe_key", "state")) == {
        "broken": "failed",
        "fine": "sent",
    }
    assert Message.objects.get(dedupe_key="broken").reason == "render_failed"


def test_replay_of_a_failed_message_sends_it() -> None:
    message = MessageFactory(state="failed", reason="refused", failures=1)
    assert replay_messages([message.pk]) == 1
    assert replay_messages([message.pk]) == 0
    deliver()
    assert states() == [("sent", "")]


def test_number_of_queries_is_the_same_for_1_and_50_messages() -> None:
    topic, template = TopicFactory(), TemplateFactory()
    published_versions({template.published_id})  # read once per process
    counts = []
    for size in (1, 50):
        MessageFactory.create_batch(
            size, stream=Stream.MARKETING, topic=topic, template_version=template.published
        )
        with CaptureQueriesContext(connection) as queries:
            assert deliver_batch(Stream.MARKETING, limit=50) == (size == 50)
        counts.append(len(queries))
    assert counts[0] == counts[1]
    assert SandboxMail.objects.count() == 51


def test_without_redis_a_batch_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    MessageFactory.create_batch(3)
    monkeypatch.setattr("delivery.engine.open_journal", lambda _id: None)
    deliver_batch(Stream.TRANSACTIONAL, limit=50)
    assert sorted(state for state, _ in states()) == ["queued", "queued", "sent"]
    deliver()
    assert SandboxMail.objects.count() == 3


def test_journal_is_gone_once_the_next_is_opened() -> None:
    for _ in range(3):
        MessageFactory.create_batch(2)
        deliver()
        assert len(list(redis_client().scan_iter("handover:*"))) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("moment", ["load_facts", "open_journal", "transitions.dispatch"])
def test_batch_whose_database_is_lost_before_the_hand_over_is_due_again_at_once(
    monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    MessageFactory.create_batch(3)
    target = f"delivery.{moment}" if "." in moment else f"delivery.engine.{moment}"
    as_usual = resolve_name(target)

    def lose_it_once(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(target, as_usual)
        drop_database_connection()
        return as_usual(*args, **kwargs)

    monkeypatch.setattr(target, lose_it_once)
    with pytest.raises(OperationalError):
        deliver_batch(Stream.TRANSACTIONAL, limit=10)
    assert states() == [("queued", "")] * 3
    deliver()
    assert states() == [("sent", "")] * 3
    assert SandboxMail.objects.count() == 3


@pytest.mark.django_db(transaction=True)
def test_mail_waits_for_a_full_disk_however_often_it_is_tried() -> None:
    MessageFactory.create_batch(3, sender=SenderFactory(provider=ProviderFactory(hourly_cap=100)))
    with disk_full("delivery_quota"):
        for _ in range(MAX_CRASHES):
            with pytest.raises(OperationalError):
                deliver_batch(Stream.TRANSACTIONAL, limit=10)
        assert set(Message.objects.values_list("state", "crashes")) == {("queued", 0)}
    deliver()
    assert states() == [("sent", "")] * 3


@pytest.mark.django_db(transaction=True)
def test_mail_waits_for_whoever_holds_its_address_and_keeps_no_other_from_it() -> None:
    held, *others = MessageFactory.create_batch(3)
    digest = address_hash(held.contact.email_normalized or "")
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            lock_addresses([digest], shared=False)
            holding.set()
            done.wait(30)
        connection.close()

    with ThreadPoolExecutor() as pool:
        holder = pool.submit(hold)
        try:
            assert holding.wait(10)
            with connection.cursor() as cursor:
                cursor.execute("SET lock_timeout = '50ms'")
            for _ in range(2 * MAX_CRASHES):
                for limit, crashed in ((10, False), *[(1, True)] * 3):
                    with contextlib.suppress(OperationalError):
                        deliver_batch(Stream.TRANSACTIONAL, limit=limit, crashed=crashed)
                Message.objects.filter(state="queued").update(due_at=Now())
            assert states(pk=held.pk) == [("queued", "")]
            assert states(pk__in=[message.pk for message in others]) == [("sent", "")] * 2
        finally:
            done.set()
        holder.result(10)
    connection.close()
    deliver()
    assert states() == [("sent", "")] * 3


@pytest.mark.django_db(transaction=True)
def test_outcome_is_recorded_once_the_database_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    MessageFactory()
    as_usual = transitions.settle

    def lose_it_once(settled: Any) -> Any:
        monkeypatch.setattr(transitions, "settle", as_usual)
        drop_database_connection()
        return as_usual(settled)

    monkeypatch.setattr(transitions, "settle", lose_it_once)
    deliver()
    assert states() == [("sent", "")]
    assert Attempt.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_message_that_makes_its_batch_fail_is_isolated_and_given_up() -> None:
    good = MessageFactory.create_batch(5)
    bad = MessageFactory(attempts=32_767)  # one more and the column overflows
    for _ in range(12):
        with contextlib.suppress(DataError):
            deliver_batch(Stream.TRANSACTIONAL, limit=10)
        with contextlib.suppress(DataError):
            deliver_batch(Stream.TRANSACTIONAL, limit=1, crashed=True)
    assert states(pk=bad.pk) == [("dead", "crashed")]
    assert states(pk__in=[message.pk for message in good]) == [("sent", "")] * 5
    assert SandboxMail.objects.count() == 5


def test_sender_that_is_set_up_later_sends_what_waited_for_it() -> None:
    message = MessageFactory(sender=None)
    Sender.objects.all().delete()
    deliver()
    assert states() == [("held", "no_sender")]
    SenderFactory(is_default=True)
    Message.objects.filter(pk=message.pk).update(due_at=Now())
    recovery.recover()
    deliver()
    assert states() == [("sent", "")]

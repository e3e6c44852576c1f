"""Each invariant, broken on purpose: an auditor that finds nothing proves something only then."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db.models import F
from django.db.models.functions import Now

from campaigns.engine import drain as campaigns_drain
from campaigns.models import Enrollment, StepRun
from campaigns.states import StepKind
from common.addresses import parse_address
from contacts.models import Subscription
from contacts.services import record_consent
from contacts.states import ConsentState
from delivery.engine import drain
from delivery.models import Attempt, Message, Quota, SandboxMail
from suppression.services import SuppressionRequest, suppress_addresses
from suppression.states import SuppressionReason
from tests.auditor import audit, is_empty
from tests.delivery.ledger import Ledger, Taken
from tests.factories import (
    CampaignFactory,
    ContactFactory,
    EventFactory,
    EventTypeFactory,
    MessageFactory,
    ProviderFactory,
    SenderFactory,
    TopicFactory,
)
from webhooks.models import Receipt

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.unaudited("each of them leaves behind what the auditor is to find"),
]

ROOT = Path(__file__).resolve().parents[1]
DAYS = timedelta(days=2)
LONG_AGO = Now() - timedelta(minutes=3)


def message(state: str, **fields: Any) -> Callable[[], Message]:
    return lambda: MessageFactory(state=state, **fields)


def enrollment() -> Enrollment:
    """Of somebody who has got a mail and waits for an event."""
    wait = {"key": "wait", "kind": StepKind.WAIT_FOR_EVENT, "wait_amount": 1}
    answered = EventTypeFactory(name="Answered")
    mail = {"key": "mail", "kind": StepKind.SEND_EMAIL}
    CampaignFactory(steps=[mail, {**wait, "event_type": answered}])
    EventFactory()
    campaigns_drain(budget=5)
    return Enrollment.objects.get()


def receipt() -> Receipt:
    return Receipt.objects.create(provider="postmark", provider_event_id="1", body=b"{}")


def quota(**fields: Any) -> Quota:
    return Quota.objects.create(
        **{"name": "provider:sandbox:day", "starts_at": today(), "most": 5, **fields}
    )


def today() -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


SOUND_UNTIL_CHANGED: list[tuple[Callable[[], Any], dict[str, Any], str]] = [
    (EventFactory, {"due_at": Now() + DAYS}, "I1: event {} is pending and not due for a day"),
    (EventFactory, {"state": "lost"}, "I1: event {} is lost"),
    (
        lambda: EventFactory(state="processed"),
        {"claimed_until": Now()},
        "I1: event {} is processed and leased",
    ),
    (receipt, {"due_at": Now() + DAYS}, "I1: receipt {} is pending and not due for a day"),
    (message("claimed"), {"lease_until": None}, "I1: message {} is claimed without a lease"),
    (message("dispatching"), {"lease_owner": ""}, "I1: message {} is dispatching without a lease"),
    (
        message("dispatching"),
        {"handover_id": None},
        "I1: message {} is dispatching without a journal",
    ),
    (message("sent"), {"lease_owner": "w"}, "I1: message {} is sent and leased"),
    (message("retry"), {"due_at": Now() + DAYS}, "I1: message {} is retry and not due for a day"),
    (
        message("held", reason="cap_reached"),
        {"due_at": Now() + DAYS},
        "I1: message {} is held and not due for a day",
    ),
    (
        message("held"),
        {"reason": "suppressed"},
        "I1: message {} is held for what nobody lifts: suppressed",
    ),
    (enrollment, {"wake_at": None}, "I1: enrollment {} waits and is never woken"),
    (
        enrollment,
        {"state": "finished"},
        "I1: enrollment {} is finished and still waits for an event",
    ),
    (
        message("unknown"),
        {"replay_until": Now(), "state": "dead"},
        "I3: message {} may have been taken and is dead",
    ),
    (message("claimed"), {"lease_until": LONG_AGO}, "I4: message {} was leased until *"),
    (
        message("dispatching"),
        {"lease_until": Now() + timedelta(hours=1)},
        "I4: message {} was leased until *",
    ),
    (EventFactory, {"claimed_until": LONG_AGO}, "I4: event {} was leased until *"),
    (receipt, {"claimed_until": LONG_AGO}, "I4: receipt {} was leased until *"),
    (quota, {"used": 6}, "I6: limit provider:sandbox:day of 5 was used 6 times"),
    (enrollment, {"seq": 2}, "I7: enrollment {} has run 1 steps and says 2"),
    (message("queued"), {"failures": 1}, "I7: message {} failed 1 times in 0"),
    (
        message("sent"),
        {"handed_over_at": None},
        "I7: message {} has 1 attempts and hand-over never",
    ),
    *(
        (message(state), {"reason": ""}, f"I8: message {{}} is {state} without a reason")
        for state in ("unknown", "failed", "dead", "skipped")
    ),
    (message("sent"), {"reason": "refused"}, "I8: message {} is sent, and *refused"),
    (message("sent"), {"sent_at": None}, "I8: message {} is sent, and never "),
    (
        message("dead", reason="crashed"),
        {"crashes": 2},
        "I8: message {} is given up after 2 crashes",
    ),
    (
        lambda: EventFactory(state="ignored"),
        {"reason": ""},
        "I8: event {} is ignored without a reason",
    ),
    (lambda: EventFactory(state="dead"), {"error": ""}, "I8: event {} is dead without a reason"),
    (receipt, {"state": "dead"}, "I8: receipt {} is dead without a reason"),
    (enrollment, {"state": "parked"}, "I8: enrollment {} is parked without a reason"),
]


@pytest.mark.parametrize(
    ("make", "change", "breach"), SOUND_UNTIL_CHANGED, ids=[b for *_, b in SOUND_UNTIL_CHANGED]
)
def test_row_that_is_changed_behind_everybodys_back_is_named(
    make: Callable[[], Any], change: dict[str, Any], breach: str
) -> None:
    row = make()
    assert audit() == []
    type(row).objects.filter(pk=row.pk).update(**change)
    (found,) = audit()
    pattern = re.escape(breach.format(row.pk)).replace(r"\*", ".+")
    assert re.fullmatch(pattern, found), found


def test_i1_accepted_event_has_to_be_there() -> None:
    event = EventFactory()
    assert audit(accepted=[event.event_id, "gone"]) == ["I1: event gone was accepted and is gone"]


def test_i1_at_rest_nothing_waits() -> None:
    event, mail, told = EventFactory(), MessageFactory(), receipt()
    MessageFactory(state="sent")
    assert audit() == []
    assert audit(at_rest=True) == [
        f"I1: event {event.pk} is still pending",
        f"I1: receipt {told.pk} is still pending",
        f"I1: message {mail.pk} is still queued",
    ]


def test_i2_second_message_of_a_step_is_found_by_its_origin_and_by_its_key() -> None:
    inside = enrollment()
    twin = MessageFactory(
        dedupe_key="another", origin_enrollment=str(inside.pk), origin_step="mail"
    )
    assert sorted(audit()) == [
        f"I2: message {twin.pk} has the key of something else",
        f"I2: step mail of enrollment {inside.pk} has 2 messages",
    ]


def test_i2_message_belongs_to_one_step() -> None:
    inside = enrollment()
    mail = inside.step_runs.get().message
    StepRun.objects.create(enrollment=inside, seq=2, step_key="again", message=mail)
    Enrollment.objects.update(seq=2)
    assert audit() == [f"I2: message {mail.pk} is that of 2 steps"]


def test_i3_mail_that_lies_in_the_inbox_twice_is_found() -> None:
    mail = MessageFactory()
    drain("transactional", budget=5)
    assert audit() == []
    SandboxMail.objects.create(message=mail, raw=b"")
    assert audit() == [f"I3: message {mail.pk} was taken 2 times"]


@pytest.mark.parametrize("state", ["queued", "claimed", "retry", "failed", "dead", "skipped"])
def test_i3_provider_has_what_the_row_does_not_say(state: str) -> None:
    mail = MessageFactory(state=state)
    assert audit(ledger=taken(mail)) == [f"I3: message {mail.pk} was taken and is {state}"]


@pytest.mark.parametrize("state", ["sent", "unknown", "dispatching"])
def test_i3_each_provider_counts(state: str) -> None:
    mail = MessageFactory(state=state)
    assert audit(ledger=taken(mail)) == []
    SandboxMail.objects.create(message=mail, raw=b"")
    assert audit(ledger=taken(mail)) == [f"I3: message {mail.pk} was taken 2 times"]


def test_i3_message_nobody_knows_is_found() -> None:
    stranger = uuid4()
    entry = Taken(time.time(), stranger, "", "")
    assert audit(ledger=[entry]) == [f"I3: message {stranger} was taken and has no row"]


def taken(mail: Message) -> list[Taken]:
    """As the file of a ledger has it."""
    ledger = Ledger()
    ledger.take(mail.pk, b"body", key="k")
    return ledger.entries()


def suppress(mail: Message, scope: str) -> None:
    address = parse_address(mail.email)
    suppress_addresses([SuppressionRequest(address, scope, SuppressionReason.MANUAL, "test")])


@pytest.mark.parametrize(
    ("stream", "scope", "is_forbidden"),
    [
        ("transactional", "all", True),
        ("transactional", "marketing", False),
        ("marketing", "marketing", True),
        ("marketing", "topic:news", True),
        ("marketing", "topic:other", False),
    ],
)
def test_i5_hand_over_after_a_suppression_is_found(
    stream: str, scope: str, is_forbidden: bool
) -> None:
    mail = MessageFactory(state="sent", stream=stream, topic=TopicFactory())
    suppress(mail, scope)
    assert audit() == []
    Message.objects.update(handed_over_at=Now())
    breach = f"I5: message {mail.pk} was handed over after {scope} had been suppressed"
    assert audit() == ([breach] if is_forbidden else [])


def test_i5_provider_that_took_it_long_after_the_suppression_is_found() -> None:
    mail = MessageFactory(state="sent")
    suppress(mail, "all")
    (entry,) = taken(mail)
    assert audit(ledger=[entry]) == []
    late = entry._replace(at=entry.at + 6)
    breach = f"I5: message {mail.pk} was handed over after all had been suppressed"
    assert audit(ledger=[late]) == [breach]


def test_i5_hand_over_after_a_withdrawal_is_found() -> None:
    topic = TopicFactory()
    mail = MessageFactory(state="sent", stream="marketing", topic=topic)
    record_consent(mail.contact, topic, ConsentState.WITHDRAWN, source="test")
    assert audit() == []
    Message.objects.update(handed_over_at=Now())
    assert audit() == [f"I5: message {mail.pk} was handed over after a withdrawal"]


@pytest.mark.parametrize("name", ["provider:sandbox", "warmup:{}:example.com:gmail"])
def test_i6_hand_over_that_was_not_counted_is_found(name: str) -> None:
    provider = ProviderFactory()
    contact = ContactFactory(email="a@gmail.com", email_normalized="a@gmail.com")
    sender = SenderFactory(provider=provider)
    MessageFactory(contact=contact, sender=sender, state="sent", sending_domain="example.com")
    noon = today() + timedelta(hours=12)
    Message.objects.update(handed_over_at=noon)
    day = quota(name=name.format(provider.pk) + ":day", used=1)
    quota(name=name.format(provider.pk) + ":hour", starts_at=noon - timedelta(hours=1))
    assert audit() == []
    Quota.objects.update(used=0)
    assert audit() == [f"I6: limit {day.name} says 0, and 1 were handed over"]


def test_i7_attempt_beyond_those_that_were_made_is_found() -> None:
    mail = MessageFactory(state="sent")
    Attempt.objects.update(number=F("number") + 1)
    assert audit() == [f"I7: attempt 2 of message {mail.pk} was not made"]


def test_i7_subscription_is_the_newest_line_of_the_ledger() -> None:
    contact, topic = ContactFactory(), TopicFactory()
    record_consent(contact, topic, ConsentState.WITHDRAWN, source="test")
    record_consent(contact, topic, ConsentState.GRANTED, source="test")
    assert audit() == []
    Subscription.objects.update(state=ConsentState.WITHDRAWN)
    assert audit() == [f"I7: contact {contact.pk} said granted last and is withdrawn"]
    Subscription.objects.all().delete()
    assert audit() == [f"I7: contact {contact.pk} said granted last and is nothing"]


@pytest.mark.parametrize("state", ["sent", "unknown", "failed", "dead"])
def test_i8_end_by_a_provider_has_an_attempt_or_a_proof(state: str) -> None:
    mail = MessageFactory(state=state)
    Attempt.objects.all().delete()
    assert audit() == [f"I8: message {mail.pk} is {state} without an attempt"]
    Message.objects.update(bounced_at=Now())
    assert audit() == []


def test_nothing_is_audited_where_there_is_nothing() -> None:
    assert is_empty()
    MessageFactory()
    assert not is_empty()


def test_auditor_runs_after_each_test_and_before_its_rows_are_gone() -> None:
    """On servers of its own: a second pytest would empty this one's."""
    shared = ("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "PYTEST_XDIST_WORKER")
    command = [sys.executable, "-m", "emailauto.embedded", "exec", "--", sys.executable, "-m"]
    done = subprocess.run(
        [*command, "pytest", "-q", "-p", "no:cacheprovider", "tests/broken_on_purpose.py"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in shared},
        capture_output=True,
        text=True,
        timeout=600,
    )
    found = re.findall(r"^(ERROR|FAILED) \S+::(\w+)", done.stdout, re.MULTILINE)
    assert sorted(found) == [
        ("ERROR", name)
        for name in (
            "test_error_with_a_traceback",
            "test_line_with_a_secret",
            "test_line_with_an_address",
            "test_rows_of_a_committed_test",
            "test_rows_of_a_rolled_back_test",
            "test_rows_of_a_test_that_asks_for_the_database_by_a_fixture",
            "test_taken_twice_by_a_provider",
        )
    ], done.stdout

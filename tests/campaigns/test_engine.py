"""The automation engine: events in, contacts, enrollments and messages out."""

from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from campaigns import engine
from campaigns.models import Enrollment, StepRun, Wait
from campaigns.services import pause_campaign, publish_campaign
from campaigns.states import EXIT, EnrollmentState, StepKind
from campaigns.timers import wake_batch
from common.clock import now, to_milliseconds
from contacts.models import Contact
from delivery.models import Message
from events.inbox import MAX_ATTEMPTS, bury_killers, claim_events
from events.models import Event
from events.services import submit
from events.wire import EventIn
from tests.factories import (
    CampaignFactory,
    ContactFactory,
    EventFactory,
    EventTypeFactory,
    event_in,
)
from tests.outage import disk_full, drop_database_connection

pytestmark = pytest.mark.django_db


def process() -> None:
    while engine.drain(budget=10):
        pass


def test_event_becomes_one_message_for_its_person() -> None:
    campaign = CampaignFactory()
    submit([event_in("e1")])
    process()
    message = Message.objects.get()
    assert message.email == "e1@example.com"
    assert message.origin_campaign == campaign.key
    assert message.origin_event_id == "e1"
    assert message.context["payload"]["name"] == "Ada"
    assert Enrollment.objects.get().state == EnrollmentState.FINISHED
    assert list(StepRun.objects.values_list("step_key", "outcome")) == [("mail", "queued")]
    event = Event.objects.get()
    assert (event.state, event.outcome) == (
        "processed",
        [{"campaign": campaign.key, "result": "entered"}],
    )
    assert event.contact_id == message.contact_id


def test_event_processed_again_makes_no_second_message() -> None:
    CampaignFactory()
    submit([event_in("e1")])
    process()
    Event.objects.update(state="pending")
    process()
    assert Message.objects.count() == 1
    assert Event.objects.get().reason == "already_enrolled"


def test_rule_that_does_not_match_leaves_the_event_ignored_with_reason() -> None:
    condition = {"path": "payload.plan", "op": "eq", "value": "pro"}
    campaign = CampaignFactory(rule={"condition": condition})
    submit([event_in("e1")])
    process()
    event = Event.objects.get()
    assert (event.state, event.reason) == ("ignored", "not_matched")
    assert event.outcome == [{"campaign": campaign.key, "result": "not_matched"}]
    assert Message.objects.count() == 0


def test_event_nobody_listens_to_updates_the_contact_only() -> None:
    submit([event_in("e1", event_type="Seen")])
    process()
    assert Event.objects.get().reason == "no_campaign"
    assert Contact.objects.get().name == "Ada"


def test_event_without_person_is_ignored_with_reason() -> None:
    CampaignFactory()
    submit([event_in("e1", user_id=None, payload={"email": "a@b,c@d.com"})])
    process()
    assert Event.objects.get().reason == "no_person"
    assert Contact.objects.count() == 0


def test_paused_campaign_lets_nobody_in() -> None:
    pause_campaign(CampaignFactory())
    submit([event_in("e1")])
    process()
    assert Event.objects.get().reason == "campaign_paused"
    assert Message.objects.count() == 0


def test_two_events_of_a_new_person_in_one_batch_make_one_contact() -> None:
    CampaignFactory()
    events = [event_in(f"e{n}", user_id="u1", payload={"email": "u1@example.com"}) for n in (1, 2)]
    submit(events)
    process()
    assert Contact.objects.count() == 1
    assert Message.objects.count() == 2


@pytest.fixture
def cart_campaign() -> object:
    order = EventTypeFactory(name="OrderCompleted")
    return CampaignFactory(
        rule={
            "event_type": EventTypeFactory(name="CartUpdated"),
            "entry_key_path": "payload.cart_id",
        },
        steps=[
            {
                "key": "ordered",
                "kind": StepKind.WAIT_FOR_EVENT,
                "event_type": order,
                "match_path": "payload.cart_id",
                "wait_amount": 1,
                "wait_unit": "hours",
                "on_event": EXIT,
            },
            {"key": "mail", "kind": StepKind.SEND_EMAIL},
        ],
    )


def cart(event_id: str, cart_id: str = "c1", event_type: str = "CartUpdated", **fields: object):
    payload = {"email": "u1@example.com", "cart_id": cart_id}
    return event_in(event_id, event_type=event_type, user_id="u1", payload=payload, **fields)


def ring_timers() -> None:
    Enrollment.objects.filter(state="waiting").update(wake_at=now() - timedelta(seconds=1))
    wake_batch(limit=50)


def test_abandoned_cart_is_mailed_when_the_time_is_up(cart_campaign: object) -> None:
    submit([cart("e1")])
    process()
    assert Wait.objects.get().match_value == "c1"
    assert Message.objects.count() == 0
    ring_timers()
    assert Message.objects.get().origin_step == "mail"
    assert Wait.objects.count() == 0
    assert list(StepRun.objects.values_list("step_key", "outcome")) == [
        ("ordered", "timeout"),
        ("mail", "queued"),
    ]


@pytest.mark.parametrize("together", [True, False])
def test_order_with_the_same_cart_ends_the_wait(cart_campaign: object, together: bool) -> None:
    batches = [[cart("e1"), cart("e2", event_type="OrderCompleted")]]
    if not together:
        batches = [[event] for event in batches[0]]
    for batch in batches:
        submit(batch)
        process()
    ring_timers()
    assert Message.objects.count() == 0
    assert Enrollment.objects.get().state == EnrollmentState.EXITED
    assert Wait.objects.count() == 0


@pytest.mark.parametrize("together", [True, False])
def test_order_that_overtook_its_cart_is_not_missed(cart_campaign: object, together: bool) -> None:
    order = cart("e1", event_type="OrderCompleted")
    basket = cart("e2", timestamp=int((now() - timedelta(minutes=1)).timestamp() * 1000))
    for batch in [[order, basket]] if together else [[order], [basket]]:
        submit(batch)
        process()
    ring_timers()
    assert Message.objects.count() == 0
    assert Enrollment.objects.get().state == EnrollmentState.EXITED


def test_order_with_another_cart_changes_nothing(cart_campaign: object) -> None:
    submit([cart("e1"), cart("e2", "c2", "OrderCompleted")])
    process()
    ring_timers()
    assert Message.objects.count() == 1


def test_same_cart_again_is_not_a_second_enrollment(cart_campaign: object) -> None:
    submit([cart("e1"), cart("e2"), cart("e3", "c3")])
    process()
    assert Enrollment.objects.count() == 2


def test_step_deleted_while_somebody_waits_there_leads_to_the_next(cart_campaign: object) -> None:
    submit([cart("e1")])
    process()
    cart_campaign.steps.filter(key="ordered").delete()
    publish_campaign(cart_campaign, by=None)
    ring_timers()
    assert Message.objects.get().origin_step == "mail"
    assert Enrollment.objects.get().state == EnrollmentState.FINISHED


def test_poison_event_is_dead_after_five_attempts_and_neighbours_pass() -> None:
    CampaignFactory()
    EventTypeFactory(name="Poison", profile_paths=["a list where an object belongs"])
    poison = event_in("poison", event_type="Poison")
    submit([event_in("good-1"), poison, event_in("good-2")])
    for _ in range(8):
        Event.objects.filter(state="pending").update(due_at=now())
        process()
    assert dict(Event.objects.values_list("event_id", "state")) == {
        "good-1": "processed",
        "poison": "dead",
        "good-2": "processed",
    }
    dead = Event.objects.get(event_id="poison")
    assert dead.attempts == 5
    assert "Traceback" in dead.error


def test_event_that_kills_every_worker_is_buried() -> None:
    EventFactory(event_id="killer")
    for _ in range(5):
        Event.objects.update(claimed_until=now() - timedelta(seconds=1), due_at=Now())
        claimed = claim_events(owner="dies", limit=10, retried=Event.objects.get().attempts > 0)
        assert len(claimed) == 1
    Event.objects.update(claimed_until=now() - timedelta(seconds=1))
    assert claim_events(owner="next", limit=10, retried=True) == []
    assert bury_killers() == 1
    assert Event.objects.get().state == "dead"


@pytest.mark.parametrize("known", [True, False])
def test_number_of_queries_is_the_same_for_1_and_50_events(known: bool) -> None:
    CampaignFactory()
    CampaignFactory(
        rule={"entry_key_path": "payload.cart"},
        steps=[
            {"key": "pause", "kind": StepKind.DELAY, "wait_amount": 1},
            {"key": "mail", "kind": StepKind.SEND_EMAIL},
        ],
    )
    EventFactory(user_id="first")
    engine.process_batch(limit=50)  # this process knows the campaigns' plans now
    counts = []
    for size in (1, 50):
        for n in range(size):
            user_id = f"{size}-{n}"
            if known:
                ContactFactory(user_id=user_id, email=f"{user_id}@example.com")
            EventFactory(user_id=user_id)
        with CaptureQueriesContext(connection) as queries:
            assert engine.process_batch(limit=50) == size
        counts.append(len(queries))
    assert counts[0] == counts[1]
    assert Message.objects.count() == 52


def late(event_id: str, hours: float, **fields: object) -> EventIn:
    happened = now() - timedelta(hours=hours)
    return event_in(event_id, timestamp=to_milliseconds(happened), **fields)


def test_late_event_updates_the_person_and_starts_nothing() -> None:
    CampaignFactory()
    submit([late("e1", 73, user_id="u", payload={"email": "new@example.com", "name": "New"})])
    process()
    event = Event.objects.get()
    assert (event.state, event.reason) == ("ignored", "late")
    contact = Contact.objects.get()
    assert (contact.email, contact.name, event.contact_id) == ("new@example.com", "New", contact.pk)
    assert not Message.objects.exists()


def test_event_within_the_limit_starts_its_campaign() -> None:
    CampaignFactory()
    submit([late("e1", 71)])
    process()
    assert Message.objects.count() == 1


def test_event_that_waited_here_is_not_late() -> None:
    CampaignFactory()
    submit([event_in("e1")])
    Event.objects.update(
        received_at=now() - timedelta(days=9), occurred_at=now() - timedelta(days=9)
    )
    process()
    assert Message.objects.count() == 1


def test_late_event_answers_no_wait(cart_campaign: object) -> None:
    submit([cart("e1")])
    process()
    payload = {"email": "u1@example.com", "cart_id": "c1"}
    submit([late("order", 80, event_type="OrderCompleted", user_id="u1", payload=payload)])
    process()
    assert Enrollment.objects.get().state == EnrollmentState.WAITING


@pytest.mark.parametrize(
    ("event_type", "payload", "name"),
    [
        ("identify", {"name": "Ada", "plan": "pro", "n": 3, "x": {"a": 1}}, "Ada"),
        ("Product Added", {"name": "Monopoly", "price": 18.99}, ""),
        ("Signed Up", {"name": "Ada", "email": "ada@example.com"}, "Ada"),
        ("Signed Up", {"user": {"name": "Ada"}}, "Ada"),
    ],
)
def test_name_of_an_unregistered_event_is_a_person_s_or_none(
    event_type: str, payload: dict[str, object], name: str
) -> None:
    submit([event_in("e1", event_type=event_type, payload=payload)])
    process()
    contact = Contact.objects.get()
    assert contact.name == name
    assert contact.attributes == ({"plan": "pro", "n": 3} if event_type == "identify" else {})


@pytest.mark.django_db(transaction=True)
def test_batch_whose_database_is_lost_comes_again_at_once_and_counts_no_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    CampaignFactory()
    submit([event_in(f"e{n}") for n in range(3)])
    process_as_usual = engine._process

    def lose_it_once(events: list[Event], owner: str) -> list[str]:
        monkeypatch.setattr(engine, "_process", process_as_usual)
        drop_database_connection()
        return process_as_usual(events, owner)

    monkeypatch.setattr(engine, "_process", lose_it_once)
    with pytest.raises(OperationalError):
        engine.process_batch(limit=10)
    assert set(Event.objects.values_list("state", "attempts", "error")) == {("pending", 0, "")}
    assert engine.process_batch(limit=10) == 3
    assert Message.objects.count() == 3


@pytest.mark.django_db(transaction=True)
def test_events_wait_for_a_full_disk_and_count_no_attempt() -> None:
    CampaignFactory()
    submit([event_in(f"e{n}") for n in range(3)])
    with disk_full("delivery_message"):
        for _ in range(MAX_ATTEMPTS):
            with pytest.raises(OperationalError):
                engine.drain(budget=10)
        assert set(Event.objects.values_list("state", "attempts", "error")) == {("pending", 0, "")}
    process()
    assert Message.objects.count() == 3


@pytest.mark.django_db(transaction=True)
def test_timers_wait_for_a_full_disk_and_count_no_attempt(cart_campaign: object) -> None:
    submit([cart("e1")])
    process()
    with disk_full("delivery_message"), pytest.raises(OperationalError):
        ring_timers()
    assert Enrollment.objects.values_list("state", "attempts", "error").get() == ("waiting", 0, "")
    ring_timers()
    assert Message.objects.count() == 1

"""Being erased: from the first transaction on, whatever comes in meanwhile and afterwards."""

import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils.timezone import now

from campaigns.models import Enrollment
from common.addresses import address_hash
from contacts import dsar
from contacts.dsar import Part, Person, begin_erasure, continue_erasures, personal_copy
from contacts.ledger import record_tracking
from contacts.models import Consent, Contact, Erasure, Subscription, Topic
from contacts.services import record_consent
from contacts.states import ConsentState
from delivery.links import CONFIRM, PREFERENCES, UNSUBSCRIBE, VIEW
from delivery.models import Link, Message
from events.models import Event, Rejection
from events.services import submit
from events.wire import Recorded
from suppression.models import Suppression
from suppression.services import lock_addresses
from tests.contacts.people import ADDRESS, CANARY, USER, contact, process, tables_with
from tests.factories import ContactFactory, MessageFactory, TopicFactory, event_in
from tests.preferences.pages import get, post

__all__ = ["contact"]

pytestmark = pytest.mark.django_db


def erase(contact: Contact) -> None:
    begin_erasure(contact, source="test")
    assert continue_erasures() == 1


def meanwhile(act: Callable[[], object], *, in_part: str = "receipts") -> Any:
    """`act` once, while that part is being erased."""
    part, calls = dsar._parts[in_part], [act]

    def erase(person: Person) -> object:
        while calls:
            calls.pop()()
        return part.erase(person)

    changed = Part(part.name, part.models, part.copy, erase, part.addresses)
    return mock.patch.dict(dsar._parts, {in_part: changed})


def is_suppressed(address: str) -> bool:
    rows = Suppression.objects.filter(address_hash=address_hash(address))
    return rows.filter(scope="all", reason="erasure").exists()


# --- the first transaction


def test_every_address_that_was_theirs_is_suppressed(contact: Contact) -> None:
    stale = Contact.objects.get(pk=contact.pk)
    Contact.objects.filter(pk=contact.pk).update(
        email="New@example.com", email_normalized="new@example.com"
    )
    erase(stale)
    assert is_suppressed("new@example.com")
    assert is_suppressed(ADDRESS)
    submit([event_in("imp-1", user_id="crm-5", payload={"email": ADDRESS, "cart": "c9"})])
    process()
    message = Message.objects.get(origin_event_id="imp-1")
    assert (message.state, message.reason) == ("skipped", "suppressed")


def test_address_that_is_somebody_elses_today_is_left_to_them(contact: Contact) -> None:
    Contact.objects.filter(pk=contact.pk).update(
        email="new@example.com", email_normalized="new@example.com"
    )
    heir = ContactFactory(email=ADDRESS, attributes={"second": ADDRESS})
    erase(contact)
    assert is_suppressed("new@example.com")
    assert not is_suppressed(ADDRESS)
    heir.refresh_from_db()
    assert (heir.email, heir.attributes) == (ADDRESS, {"second": ADDRESS})


@pytest.mark.django_db(transaction=True)
def test_addresses_are_locked_before_the_row() -> None:
    """As everywhere: the other way round, two would wait for each other."""
    contact = ContactFactory(email="ada@example.com")
    beginning = threading.Thread(target=_begin_in_thread, args=(contact,))
    with transaction.atomic():
        lock_addresses([address_hash("ada@example.com")], shared=False)
        beginning.start()
        beginning.join(0.5)
        assert beginning.is_alive(), "it did not wait for the address"
        Contact.objects.select_for_update().get(pk=contact.pk)
    beginning.join(20)
    assert Erasure.objects.count() == 1
    assert is_suppressed("ada@example.com")


def _begin_in_thread(contact: Contact) -> None:
    try:
        begin_erasure(contact, source="test")
    finally:
        connection.close()


def test_names_are_gone_with_the_first_transaction(contact: Contact) -> None:
    erasure = begin_erasure(contact, source="test")
    contact.refresh_from_db()
    assert (contact.user_id, contact.email, contact.name) == (None, "", "")
    assert contact.erased_at is not None
    assert (erasure.user_id, ADDRESS in erasure.addresses) == (USER, True)
    assert begin_erasure(contact, source="again").pk == erasure.pk
    continue_erasures()
    erasure.refresh_from_db()
    assert (erasure.user_id, erasure.addresses, erasure.marks) == ("", [], {})


# --- meanwhile


def test_event_that_comes_meanwhile_is_not_theirs(contact: Contact) -> None:
    begin_erasure(contact, source="test")

    def come_again() -> None:
        submit([event_in("late", user_id=USER, payload={"email": ADDRESS, "cart": "2"})])
        process()

    with meanwhile(come_again):
        assert continue_erasures() == 1
    late = Event.objects.get(event_id="late")
    assert late.contact_id not in (None, contact.pk)
    assert late.payload["cart"] == "2"
    assert not Enrollment.objects.filter(contact=contact).exists()
    assert set(Message.objects.filter(contact=contact).values_list("email", flat=True)) == {""}
    assert Message.objects.get(origin_event_id="late").reason == "suppressed"


def test_row_that_a_worker_wrote_meanwhile_is_swept_as_well(contact: Contact) -> None:
    begin_erasure(contact, source="test")

    def write() -> None:
        MessageFactory(contact=contact, email=ADDRESS, context={"payload": {"name": CANARY}})
        Consent.objects.create(
            contact=contact, topic=Topic.objects.first(), state="granted", source=CANARY
        )
        Event.objects.create(
            event_id="written", type="x", occurred_at=now(), contact_id=contact.pk, body_hash=b"x",
            payload={"name": CANARY},
        )  # fmt: skip

    with meanwhile(write, in_part="visits"):  # the last one
        assert continue_erasures() == 1
    assert tables_with(CANARY) == {}


def test_page_takes_nothing_meanwhile(contact: Contact) -> None:
    message = Message.objects.get(contact=contact)
    begin_erasure(contact, source="test")
    codes = []
    with meanwhile(lambda: codes.append(_post_preferences(message))):
        continue_erasures()
    assert codes == [404]
    assert not Consent.objects.filter(contact=contact).exists()


def _post_preferences(message: Message) -> int:
    return post(
        message, PREFERENCES, {"form": "preferences", "topic": [], "locale": "de"}
    ).status_code


# --- afterwards


@pytest.mark.parametrize("form", [{"List-Unsubscribe": "One-Click"}, {"scope": "all"}])
def test_unsubscribing_afterwards_is_done_and_writes_nothing(
    contact: Contact, form: dict[str, str]
) -> None:
    message = Message.objects.get(contact=contact)
    erase(contact)
    assert post(message, UNSUBSCRIBE, form).status_code == 200
    for purpose in (UNSUBSCRIBE, PREFERENCES, VIEW, CONFIRM):
        get(message, purpose)
        post(message, purpose, {"form": "preferences", "stop": "yes"})
    message.refresh_from_db()
    assert message.unsubscribed_at is None
    assert not Consent.objects.exists()
    assert not Subscription.objects.exists()
    assert list(Suppression.objects.values_list("scope", "reason")) == [("all", "erasure")]


def test_ledger_takes_nothing_of_the_erased(contact: Contact) -> None:
    other, topic = ContactFactory(), TopicFactory()
    stale = Contact.objects.get(pk=contact.pk)
    erase(contact)
    record_consent(stale, topic, ConsentState.GRANTED, source="form")
    record_tracking([stale, other], ConsentState.GRANTED, source="form")
    assert list(Consent.objects.values_list("contact", flat=True)) == [other.pk]
    assert list(Contact.objects.filter(may_track=True)) == [other]
    assert not Subscription.objects.exists()


@pytest.mark.parametrize(
    ("event_id", "user_id"),
    [
        ("3f7ac9e0-77aa-4c1b-9a39-1f0d6fbd6a17", "7"),
        ("order-7-of-seven", "7"),
        ("order-of-customer-77-xyz", "customer-77-xyz"),
        ("welcome-seven@example.com", "u-seven"),
        ("erased", "erased"),
    ],
)
def test_event_that_was_erased_is_not_taken_again(event_id: str, user_id: str) -> None:
    post = [event_in(event_id, user_id=user_id, payload={"email": "seven@example.com"})]
    assert submit(post) == [Recorded.ACCEPTED]
    process()
    person = Contact.objects.get(user_id=user_id)
    erase(person)
    Erasure.objects.update(finished_at=None, user_id=user_id, next_at=Now())
    continue_erasures()  # a second time it finds what it wrote itself
    assert submit(post) == [Recorded.DUPLICATE]
    process()
    assert not Contact.objects.filter(user_id=user_id).exists()
    kept = Event.objects.get().event_id
    assert kept == event_id or kept.startswith("erased:")
    assert "seven" not in kept


def test_same_id_from_another_source_is_another_event() -> None:
    first = event_in("of-seven@example.com", user_id="u", payload={"email": "seven@example.com"})
    submit([first])
    process()
    erase(Contact.objects.get(user_id="u"))
    other = event_in("of-seven@example.com", source="crm", user_id="v", payload={})
    assert submit([other, first]) == [Recorded.ACCEPTED, Recorded.DUPLICATE]


def test_short_user_id_touches_no_id_that_only_contains_it(contact: Contact) -> None:
    submit([event_in("3f7ac9e0-77aa-4c1b", user_id="7", payload={"email": "7@example.com"})])
    process()
    message = Message.objects.get(origin_event_id="3f7ac9e0-77aa-4c1b")
    erase(Contact.objects.get(user_id="7"))
    message.refresh_from_db()
    assert message.origin_event_id == "3f7ac9e0-77aa-4c1b"
    assert Event.objects.filter(event_id="3f7ac9e0-77aa-4c1b").exists()


# --- what others' rows say


def _others_consent() -> None:
    record_consent(
        ContactFactory(),
        TopicFactory(),
        ConsentState.GRANTED,
        source="form",
        evidence=f"referred by {ADDRESS}",
    )


def _others_suppression() -> None:
    Suppression.objects.create(
        address_hash=b"x" * 32,
        email="o@example.com",
        source=ADDRESS,
        evidence=f"asked by {ADDRESS}",
        beneath=[{"reason": "manual", "source": "desk", "evidence": f"for {ADDRESS}"}],
    )


def _link() -> None:
    escaped = ADDRESS.replace("@", "%40").replace("+", "%2B")
    url = f"https://shop.example/cart?email={escaped}"
    Link.objects.create(pk="8" * 8 + "-8888-8888-8888-" + "8" * 12, url=url, used_on=now().date())


def _refused(**body: Any) -> None:
    Rejection.objects.create(source="segment", event_id="r2", code="schema", body=body)


OTHERS: dict[str, Callable[[], object]] = {
    "profile": lambda: ContactFactory(attributes={"by": ADDRESS}, name=f"via {ADDRESS}"),
    "profile, after a line end": lambda: ContactFactory(attributes={"by": f"x\n{ADDRESS}"}),
    "consent": _others_consent,
    "suppression": _others_suppression,
    "link": _link,
    "refused event of somebody else": lambda: _refused(user_id="else", payload={"to": ADDRESS}),
    "Segment's refused event": lambda: _refused(userId=USER, traits={"name": CANARY}),
    "a CloudEvent refused": lambda: _refused(data={"user_id": USER, "name": CANARY}),
}


@pytest.mark.parametrize("where", OTHERS)
def test_no_trace_is_left_in_what_others_said(contact: Contact, where: str) -> None:
    OTHERS[where]()
    erase(contact)
    assert tables_with(CANARY) == {}


def test_others_keep_what_is_theirs(contact: Contact) -> None:
    _others_suppression()
    other = ContactFactory(attributes={"by": ADDRESS, "plan": "gold"})
    _refused(user_id="else", payload={"to": ADDRESS, "cart": 7})
    submit([event_in("waiting", user_id="else", payload={"friend": ADDRESS, "cart": 8})])
    erase(contact)
    other.refresh_from_db()
    assert other.attributes == {"by": "erased", "plan": "gold"}
    row = Suppression.objects.get(email="o@example.com")
    assert (row.evidence, row.beneath[0]["evidence"]) == ("asked by erased", "for erased")
    body = Rejection.objects.get(event_id="r2").body
    assert body == {"user_id": "else", "payload": {"to": "erased", "cart": 7}}
    waiting = Event.objects.get(event_id="waiting")
    assert (waiting.state, waiting.payload) == ("pending", {"friend": "erased", "cart": 8})


# --- going on


def test_erasures_that_fail_do_not_stop_others() -> None:
    for _ in range(11):
        begin_erasure(ContactFactory(), source="test")
    good = Erasure.objects.last()
    stuck = set(Erasure.objects.exclude(pk=good.pk).values_list("contact", flat=True))
    part = dsar._parts["profile"]

    def explode(person: Person) -> None:
        if person.contact_id in stuck:
            raise RuntimeError("power cut")

    broken = Part(part.name, part.models, part.copy, explode)
    with mock.patch.dict(dsar._parts, profile=broken):
        assert continue_erasures() + continue_erasures() == 1
    good.refresh_from_db()
    assert good.finished_at is not None
    failed = Erasure.objects.filter(contact__in=stuck)
    assert set(failed.values_list("tries", "last_error")) == {(1, "RuntimeError")}
    assert not failed.filter(next_at__lte=Now()).exists()


def test_sweep_goes_on_where_it_was_left(contact: Contact) -> None:
    begin_erasure(contact, source="test")
    begun = Event.objects.order_by("-pk").first().pk

    def cut() -> None:
        raise RuntimeError("power cut")

    with meanwhile(cut):
        assert continue_erasures() == 0
    assert Erasure.objects.get().marks["events"] == begun
    Erasure.objects.update(next_at=Now())
    with mock.patch.object(dsar, "_WINDOW", 1):
        assert continue_erasures() == 1
    assert tables_with(CANARY) == {}


def test_copy_names_every_part_and_what_was_tried(contact: Contact) -> None:
    _refused(userId=USER, traits={"name": CANARY})
    _refused_of_others = Rejection.objects.create(
        source="api", event_id="o", code="schema", body={"user_id": "else", "to": ADDRESS}
    )
    copy = personal_copy(contact)
    assert [row["detail"] for row in copy["attempts"]] == [f"250 {ADDRESS}"]
    assert [row["bounce_class"] for row in copy["bounces"]] == ["mailbox_full"]
    assert {row["event_id"] for row in copy["refused_events"]} == {"r", "r2"}
    assert _refused_of_others.pk
    assert [row["payload"]["cart"] for row in copy["events"]] == [CANARY]

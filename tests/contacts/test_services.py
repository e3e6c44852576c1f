"""Who an event is about."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from common.addresses import parse_address
from contacts.models import Consent, Contact, Subscription
from contacts.services import Identity, recipients, record_consent, resolve_contacts
from contacts.states import ConsentState
from tests.delivery.plans import scanned
from tests.factories import ContactFactory, TopicFactory

pytestmark = pytest.mark.django_db


def who(user_id: str = "", email: str = "", **profile: Any) -> Identity:
    return Identity(user_id, parse_address(email) if email else None, profile)


def resolve(*identities: Identity) -> list[Contact]:
    with transaction.atomic():
        return resolve_contacts(identities)


def rows() -> set[tuple[str | None, str, str]]:
    return set(Contact.objects.values_list("user_id", "email", "name"))


def test_unknown_person_is_made_once_for_all_its_events() -> None:
    one, two = resolve(who("u1", "Ada@Example.com", name="Ada"), who("u1"))
    assert one.pk == two.pk
    assert rows() == {("u1", "Ada@example.com", "Ada")}
    assert Contact.objects.get().email_normalized == "ada@example.com"


def test_address_finds_the_person_whatever_its_case() -> None:
    known = ContactFactory(user_id=None, email="ada@example.com")
    (found,) = resolve(who("u1", "ADA@EXAMPLE.COM"))
    assert found.pk == known.pk
    assert Contact.objects.get().user_id == "u1"


def test_user_id_wins_and_takes_a_free_address_along() -> None:
    ContactFactory(user_id="u1", email="old@example.com", name="Ada")
    resolve(who("u1", "new@example.com", plan="pro"))
    assert rows() == {("u1", "new@example.com", "Ada")}
    assert Contact.objects.get().attributes == {"plan": "pro"}


def test_address_of_somebody_else_is_never_taken() -> None:
    ContactFactory(user_id="u1", email="one@example.com", name="One")
    ContactFactory(user_id="u2", email="two@example.com", name="Two")
    (found,) = resolve(who("u1", "two@example.com"))
    assert found.user_id == "u1"
    assert rows() == {("u1", "one@example.com", "One"), ("u2", "two@example.com", "Two")}


def test_second_user_id_with_a_known_address_is_the_same_person() -> None:
    ContactFactory(user_id="u1", email="one@example.com", name="One")
    (found,) = resolve(who("u2", "one@example.com"))
    assert found.user_id == "u1"
    assert Contact.objects.count() == 1


def test_second_user_of_a_mailbox_does_not_rename_its_owner() -> None:
    ContactFactory(user_id="u1", email="family@example.com", name="One")
    resolve(who("u2", "family@example.com", name="Two"))
    assert rows() == {("u1", "family@example.com", "One")}


def test_address_given_up_in_a_batch_is_free_for_the_next_in_it() -> None:
    ContactFactory(user_id="u1", email="old@example.com", name="One")
    first, second = resolve(who("u1", "new@example.com"), who("u2", "old@example.com", name="Two"))
    assert first.pk != second.pk
    assert rows() == {("u1", "new@example.com", "One"), ("u2", "old@example.com", "Two")}


@pytest.mark.django_db(transaction=True)
def test_two_ids_with_one_address_at_once_make_one_contact() -> None:
    def worker(number: int) -> None:
        try:
            for n in range(20):
                resolve(who(f"u{number}", f"p{n}@example.com"), who(f"v{n}"))
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(worker, range(4)))
    emails = list(Contact.objects.exclude(email="").values_list("email_normalized", flat=True))
    assert len(emails) == len(set(emails))
    assert Contact.objects.filter(user_id__startswith="v").count() == 20


def test_consent_appends_to_the_ledger_and_moves_the_subscription() -> None:
    contact, topic = ContactFactory(), TopicFactory()
    record_consent(contact, topic, ConsentState.GRANTED, source="form")
    record_consent(contact, topic, ConsentState.WITHDRAWN, source="page")
    assert Subscription.objects.get().state == "withdrawn"
    assert list(Consent.objects.values_list("state", "source")) == [
        ("withdrawn", "page"),
        ("granted", "form"),
    ]


@pytest.mark.parametrize("is_counted", [False, True])
def test_recipients_are_read_without_everybody_elses_subscriptions(is_counted: bool) -> None:
    contact, topic = ContactFactory.create(), TopicFactory.create()
    record_consent(contact, topic, ConsentState.GRANTED, source="test")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO contacts_contact (email, name, attributes, region, is_active, locale,"
            " may_track, do_not_share) SELECT '', '', '{}', '', true, '', false, false"
            " FROM generate_series(1, 20000)"
        )
        cursor.execute(
            "INSERT INTO contacts_subscription (contact_id, topic_id, state)"
            " SELECT id, %s, 'granted' FROM contacts_contact WHERE id <> %s",
            [topic.pk, contact.pk],
        )
        cursor.execute(
            "INSERT INTO contacts_consent (contact_id, purpose, topic_id, state, source, evidence)"
            " SELECT contact_id, 'mail', topic_id, state, 'test', '' FROM contacts_subscription"
            " WHERE contact_id <> %s",
            [contact.pk],
        )
        if is_counted:
            cursor.execute("ANALYZE contacts_contact, contacts_subscription")
    ids = [contact.pk, *Contact.objects.exclude(pk=contact.pk).values_list("pk", flat=True)[:200]]
    with CaptureQueriesContext(connection) as queries:
        found = recipients(ids, subscriptions=True)
    assert found[contact.pk].subscriptions == {topic.pk: ConsentState.GRANTED}
    assert len(found) == 201
    assert "contacts_subscription" not in scanned(queries[0]["sql"])

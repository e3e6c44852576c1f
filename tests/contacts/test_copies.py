"""The copy of what we hold of a person: made by a worker, kept for some days."""

import json
from datetime import timedelta
from unittest import mock

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from common.clock import now
from contacts import dsar
from contacts.copies import ask_for_copy, make_copies, ready_copy
from contacts.dsar import Part, Person, begin_erasure, continue_erasures, parts
from contacts.models import Contact, PersonalCopy
from tests.contacts.people import ADDRESS, CANARY, contact, tables_with
from tests.factories import ContactFactory, EventFactory

__all__ = ["contact"]

pytestmark = pytest.mark.django_db


def test_copy_is_asked_for_once_and_made_once(contact: Contact) -> None:
    first = ask_for_copy(contact, source="page")
    assert ask_for_copy(contact, source="admin").pk == first.pk
    assert ready_copy(contact) is None
    assert [make_copies(), make_copies()] == [1, 0]
    copy = ready_copy(contact)
    assert copy is not None
    assert copy.source == "page"
    assert set(json.loads(bytes(copy.body))) == {part.name for part in parts()}
    ask_for_copy(contact, source="page")
    assert ready_copy(contact) is not None  # of today: it is given again


def test_copy_of_another_day_is_made_anew(contact: Contact) -> None:
    ask_for_copy(contact, source="page")
    make_copies()
    PersonalCopy.objects.update(built_at=now() - timedelta(days=2))
    Contact.objects.filter(pk=contact.pk).update(name="Renamed")
    ask_for_copy(contact, source="page")
    assert ready_copy(contact) is None
    make_copies()
    copy = ready_copy(contact)
    assert copy is not None
    assert json.loads(bytes(copy.body))["profile"][0]["name"] == "Renamed"


def test_copy_is_empty_after_seven_days(contact: Contact) -> None:
    ask_for_copy(contact, source="page")
    make_copies()
    kept = PersonalCopy.objects.get()
    assert timedelta(days=6) < kept.expires_at - now() <= timedelta(days=7)
    PersonalCopy.objects.update(expires_at=Now())
    assert ready_copy(contact) is None
    make_copies()
    assert bytes(PersonalCopy.objects.get().body) == b""


def test_copy_that_fails_does_not_stop_others_and_is_tried_again() -> None:
    bad, good = ContactFactory(), ContactFactory()
    for person in (bad, good):
        ask_for_copy(person, source="page")
    part = dsar._parts["profile"]

    def explode(person: Person) -> list[dsar.Row]:
        if person.contact_id == bad.pk:
            raise RuntimeError("power cut")
        return list(part.copy(person))

    broken = Part(part.name, part.models, explode, part.erase)
    with mock.patch.dict(dsar._parts, profile=broken):
        assert [make_copies(), make_copies()] == [1, 0]
    failed = PersonalCopy.objects.get(contact=bad)
    assert (failed.last_error, failed.built_at) == ("RuntimeError", None)
    PersonalCopy.objects.update(next_at=Now())
    assert make_copies() == 1


def test_copies_go_with_the_person_also_what_others_quote(contact: Contact) -> None:
    other = ContactFactory(attributes={"by": ADDRESS})
    for person in (contact, other):
        ask_for_copy(person, source="page")
    make_copies()
    assert tables_with(CANARY)["contacts_personalcopy"] == 2
    begin_erasure(contact, source="test")
    assert not PersonalCopy.objects.filter(contact=contact).exists()
    continue_erasures()
    assert tables_with(CANARY) == {}


def test_of_the_erased_no_copy_is_made(contact: Contact) -> None:
    begin_erasure(contact, source="test")
    ask_for_copy(contact, source="admin")
    assert make_copies() == 0
    assert ready_copy(contact) is None


@pytest.mark.parametrize("window", [1, 5_000])
def test_events_are_found_window_by_window(
    contact: Contact, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    for number in range(3):
        EventFactory(event_id=f"mine-{number}", contact_id=contact.pk)
        EventFactory(event_id=f"other-{number}", user_id="else")
    monkeypatch.setattr(dsar, "_WINDOW", window)
    ask_for_copy(contact, source="page")
    with CaptureQueriesContext(connection) as queries:
        make_copies()
    copy = ready_copy(contact)
    assert copy is not None
    found = [event["event_id"] for event in json.loads(bytes(copy.body))["events"]]
    assert found[-3:] == ["mine-0", "mine-1", "mine-2"]
    reads = [q for q in queries if "FROM events_event" in q["sql"] and "payload" in q["sql"]]
    assert len(reads) >= (6 if window == 1 else 1)
    assert all("id <=" in q["sql"] for q in reads)

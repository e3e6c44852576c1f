"""People in the admin: addresses, consent, suppression."""

import json
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse

from common.addresses import address_hash
from common.clock import now
from contacts.copies import make_copies
from contacts.dsar import begin_erasure, continue_erasures
from contacts.ledger import Objection, record_objections, record_tracking
from contacts.models import Consent, Contact, Erasure, PersonalCopy, Subscription
from contacts.services import record_consent
from contacts.states import ConsentState
from suppression.models import Suppression
from tests.factories import ContactFactory, TopicFactory

FORM = {"name": "Ada", "user_id": "", "is_active": "on", "attributes": "{}"}
NO_ROWS = {
    f"{prefix}-{name}": 0
    for prefix in ("subscriptions", "consents")
    for name in ("TOTAL_FORMS", "INITIAL_FORMS")
}


def _page(contact: Contact) -> str:
    return reverse("admin:contacts_contact_change", args=[contact.pk])


def _do(contact: Contact, name: str) -> str:
    return reverse("admin:contacts_contact_do", args=[contact.pk, name])


def test_address_is_normalised_when_it_is_edited(operator: Client) -> None:
    contact = ContactFactory(email="old@example.com")
    operator.post(_page(contact), {**FORM, **NO_ROWS, "email": " Ada@EXAMPLE.com "})
    contact.refresh_from_db()
    assert (contact.email, contact.email_normalized) == ("Ada@example.com", "ada@example.com")


def test_address_can_be_taken_away(operator: Client) -> None:
    contact = ContactFactory(email="old@example.com")
    operator.post(_page(contact), {**FORM, **NO_ROWS, "email": ""})
    contact.refresh_from_db()
    assert (contact.email, contact.email_normalized) == ("", None)


@pytest.mark.parametrize(
    ("email", "problem"),
    [
        ("nonsense", "must have an @-sign"),
        ("a@example.com, b@example.com", "The part after the @-sign"),
        ("Taken@example.com", "This address belongs to another contact: Grace."),
    ],
)
def test_unusable_address_is_refused_at_its_field(
    operator: Client, email: str, problem: str
) -> None:
    ContactFactory(name="Grace", email="taken@example.com")
    contact = ContactFactory(email="old@example.com")
    page = operator.post(_page(contact), {**FORM, **NO_ROWS, "email": email}).text
    assert problem in page.partition('name="email"')[2]
    contact.refresh_from_db()
    assert contact.email_normalized == "old@example.com"


def test_two_contacts_without_user_id_are_fine(operator: Client) -> None:
    for email in ("a@example.com", "b@example.com"):
        operator.post(reverse("admin:contacts_contact_add"), {**FORM, "email": email})
    assert list(Contact.objects.values_list("user_id", flat=True)) == [None, None]


def test_consent_is_recorded_with_who_and_how(operator: Client) -> None:
    contact, topic = ContactFactory(), TopicFactory()
    form = {"topic": topic.pk, "state": "withdrawn", "evidence": "by phone"}
    assert "They" in operator.get(_do(contact, "consent")).text
    operator.post(_do(contact, "consent"), {**form, "confirmed": "yes"})
    line = Consent.objects.get()
    assert (line.state, line.source, line.evidence) == ("withdrawn", "admin: operator", "by phone")
    assert Subscription.objects.get().state == "withdrawn"


def test_consent_without_evidence_is_not_recorded(operator: Client) -> None:
    contact, topic = ContactFactory(), TopicFactory()
    form = {"topic": topic.pk, "state": "granted", "evidence": "", "confirmed": "yes"}
    assert "This field is required" in operator.post(_do(contact, "consent"), form).text
    assert not Consent.objects.exists()


def test_ledger_is_read_only(operator: Client) -> None:
    contact, topic = ContactFactory(), TopicFactory()
    record_consent(contact, topic, ConsentState.GRANTED, source="form")
    line = Consent.objects.get()
    rows = {"consents-TOTAL_FORMS": 1, "consents-INITIAL_FORMS": 1, "consents-0-id": line.pk}
    rows |= {"consents-0-state": "withdrawn", "consents-0-DELETE": "on"}
    operator.post(_page(contact), {**FORM, **NO_ROWS, **rows, "email": "ada@example.com"})
    line.refresh_from_db()
    assert line.state == "granted"


def test_address_is_suppressed_from_the_contacts_page(operator: Client) -> None:
    contact = ContactFactory(email="ada@example.com")
    form = {"scope": "all", "evidence": "asked for it", "confirmed": "yes"}
    response = operator.post(_do(contact, "suppress"), form)
    # It travels in a cookie.
    said = [str(line) for line in get_messages(response.wsgi_request)]
    assert said == ["Suppressed for a***@e***: all mail."]
    row = Suppression.objects.get()
    assert bytes(row.address_hash) == address_hash("ada@example.com")
    assert "Suppressed: all mail" in operator.get(_page(contact)).text


def test_ledger_says_what_each_line_is_about(operator: Client) -> None:
    contact = ContactFactory()
    record_tracking([contact], ConsentState.GRANTED, source="page")
    record_objections([Objection(contact.pk, "page")])
    page = operator.get(_page(contact)).text
    assert "Recording opens and clicks" in page
    assert "Any marketing mail" in page


def test_contact_is_found_by_address_user_id_and_name(operator: Client) -> None:
    ContactFactory(name="Ada Lovelace", email="Ada@example.com", user_id="u-1")
    ContactFactory(name="Grace Hopper", email="grace@example.com", user_id="u-2")
    for term in ("ADA@example.com", "u-1", "lovel", "ada@"):
        page = operator.get("/admin/contacts/contact/", {"q": term}).text
        assert "Ada Lovelace" in page
        assert "Grace Hopper" not in page


def test_copy_is_made_and_then_downloaded(operator: Client) -> None:
    contact = ContactFactory(name="Ada", email="ada@example.com")
    page = operator.post(_do(contact, "export"), follow=True)
    assert "being put together" in page.text
    assert make_copies() == 1
    response = operator.post(_do(contact, "export"))
    assert json.loads(response.content)["profile"][0]["email"] == "ada@example.com"
    assert response["Content-Disposition"] == f'attachment; filename="contact-{contact.pk}.json"'
    assert LogEntry.objects.filter(change_message="Export").count() == 2


def test_who_may_only_look_exports_and_erases_nobody(viewer: Client) -> None:
    contact = ContactFactory()
    for name in ("export", "erase"):
        response = viewer.post(_do(contact, name), {"reason": "x", "confirmed": "yes"})
        assert response.status_code == 403
    assert not PersonalCopy.objects.exists()
    assert not Erasure.objects.exists()


def test_contact_is_erased_after_a_reason_was_given(operator: Client) -> None:
    contact = ContactFactory(name="Ada", email="ada@example.com")
    assert "gone for good" in operator.get(_do(contact, "erase")).text
    assert "required" in operator.post(_do(contact, "erase"), {"confirmed": "yes"}).text
    assert not Erasure.objects.exists()
    operator.post(_do(contact, "erase"), {"reason": "called on Monday", "confirmed": "yes"})
    erasure = Erasure.objects.get()
    assert (erasure.source, erasure.reason) == ("admin: operator", "called on Monday")
    assert Suppression.objects.get().reason == "erasure"
    assert continue_erasures() == 1
    erasure.refresh_from_db()
    assert (erasure.reason, erasure.finished_at is not None) == ("", True)
    page = operator.get(_page(contact)).text
    assert "Ada" not in page
    assert "do/erase" not in page
    assert "do/consent" not in page


def test_deleting_a_contact_leads_to_its_erasure(operator: Client) -> None:
    contact = ContactFactory()
    url = reverse("admin:contacts_contact_delete", args=[contact.pk])
    for response in (operator.get(url), operator.post(url, {"post": "yes"})):
        assert response["Location"] == _do(contact, "erase")
    listing = reverse("admin:contacts_contact_changelist")
    selected = {"action": "delete_selected", "_selected_action": [contact.pk], "post": "yes"}
    operator.post(listing, selected)
    assert Contact.objects.filter(pk=contact.pk).exists()


def test_nothing_is_written_onto_an_erased_contact(operator: Client) -> None:
    contact = ContactFactory()
    begin_erasure(contact, source="test")
    form = {**FORM, **NO_ROWS, "email": "ada@example.com"}
    assert operator.post(_page(contact), form).status_code == 403
    contact.refresh_from_db()
    assert contact.email == ""


def test_queue_of_erasures_says_what_is_overdue_and_is_tried_again(operator: Client) -> None:
    late, done = (begin_erasure(ContactFactory(), source="test") for _ in range(2))
    listing = reverse("admin:contacts_erasure_changelist")
    Erasure.objects.filter(pk=done.pk).update(finished_at=now())
    Erasure.objects.filter(pk=late.pk).update(
        requested_at=now() - timedelta(days=31),
        next_at=now() + timedelta(hours=1),
        last_error="2 receipts that name them are not applied yet",
    )
    page = operator.get(listing, {"state": "open"}).text
    assert "overdue" in page
    assert "2 receipts that name them" in page
    assert f"contact {done.contact_id}" not in page
    url = reverse("admin:contacts_erasure_do", args=[late.pk, "try-now"])
    assert "within a minute" in operator.post(url, follow=True).text
    assert continue_erasures() == 1
    assert (
        operator.post(reverse("admin:contacts_erasure_delete", args=[late.pk])).status_code == 403
    )

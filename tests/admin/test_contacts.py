"""People in the admin: addresses, consent, suppression."""

import pytest
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse

from common.addresses import address_hash
from contacts.ledger import Objection, record_objections, record_tracking
from contacts.models import Consent, Contact, Subscription
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

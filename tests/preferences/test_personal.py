"""A copy of one's data and being forgotten, from the button on the page to the last table."""

import json
import re
from datetime import timedelta
from email import message_from_bytes, policy

import pytest
from django.apps import apps
from django.conf import settings
from django.db import connection
from django.db.models import ForeignKey, Model
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from common.clock import now
from contacts import dsar
from contacts.dsar import Person, begin_erasure, continue_erasures, parts
from contacts.models import Contact, Erasure, PersonalCopy
from contacts.tasks import copy_task, erase_task
from delivery.links import PERSONAL_DATA, PREFERENCES
from delivery.models import Message, SandboxMail, Sender
from events.models import Event, EventType
from events.services import submit
from suppression.models import Suppression
from tests.contacts.people import ADDRESS, CANARY, USER, contact, process, tables_with
from tests.factories import MessageFactory, event_in
from tests.preferences.pages import assert_private, get, path_of, post, strict_client

pytestmark = pytest.mark.django_db

__all__ = ["contact"]


def data_path() -> str:
    """The link of the mail that came last."""
    raw = bytes(SandboxMail.objects.first().raw)
    body = message_from_bytes(raw, policy=policy.default).get_body(("plain",)).get_content()
    return re.search(r"https?://\S+/d/\S+", body)[0].removeprefix(settings.PUBLIC_URL)


def ask(contact: Contact, what: str) -> str:
    message = Message.objects.filter(contact=contact, stream="marketing").get()
    html = post(message, PREFERENCES, {"data": what}).content.decode()
    assert "look into your mailbox" in html
    process()
    return data_path()


def test_erasure_leaves_no_trace_in_any_table(contact: Contact) -> None:
    before = tables_with(CANARY)
    assert len(before) == 12, before
    path = ask(contact, "erase")
    assert "Erase everything" in strict_client().get(path).content.decode()
    assert Contact.objects.get(pk=contact.pk).is_active  # looking erases nothing
    response = strict_client().post(path, {"erase": "yes"})
    assert_private(response)
    assert "being erased" in response.content.decode()
    erase_task()
    assert tables_with(CANARY) == {}
    assert continue_erasures() == 0
    assert Erasure.objects.get().finished_at is not None
    assert strict_client().get(path).status_code == 410


def test_suppression_by_hash_outlives_erasure_and_the_address_is_not_mailed_again(
    contact: Contact,
) -> None:
    begin_erasure(contact, source="test")
    continue_erasures()
    row = Suppression.objects.get()
    assert (row.scope, row.reason, row.email, row.evidence) == ("all", "erasure", "", "")
    sent = SandboxMail.objects.count()
    submit([event_in("e-again", user_id=USER, payload={"email": ADDRESS})])
    process()
    again = Message.objects.get(origin_event_id="e-again")
    assert (again.state, again.reason) == ("skipped", "suppressed")
    assert SandboxMail.objects.count() == sent


def test_mail_stops_before_anything_is_erased(contact: Contact) -> None:
    begin_erasure(contact, source="test")
    waiting = MessageFactory(contact=contact)
    process()
    waiting.refresh_from_db()
    assert (waiting.state, waiting.reason) == ("skipped", "contact_inactive")


def test_erasure_that_was_cut_short_goes_on(
    contact: Contact, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_erasure(contact, source="test")
    begin_erasure(contact, source="test")
    whole = parts()

    def explode(person: Person) -> None:
        raise RuntimeError("power cut")

    last = dsar.Part("zz", (), lambda _person: [], explode)
    monkeypatch.setattr(dsar, "parts", lambda: [*whole, last])
    assert continue_erasures() == 0
    assert Erasure.objects.get().finished_at is None
    monkeypatch.setattr(dsar, "parts", lambda: whole)
    assert continue_erasures() == 0  # not at once
    Erasure.objects.update(next_at=Now())
    assert continue_erasures() == 1
    assert tables_with(CANARY) == {}


def test_nobody_else_is_touched(contact: Contact) -> None:
    other = event_in("e-2", user_id="u2", payload={"email": f"x{ADDRESS}"})
    third = event_in("e-3", user_id="u3", payload={"email": f"{ADDRESS}.au"})
    submit([other, third])
    process()
    begin_erasure(contact, source="test")
    continue_erasures()
    kept = Event.objects.filter(event_id__in=["e-2", "e-3"])
    assert [event.payload["email"] for event in kept.order_by("event_id")] == [
        f"x{ADDRESS}",
        f"{ADDRESS}.au",
    ]
    assert Contact.objects.filter(email_normalized=f"x{ADDRESS}").exists()
    friend = Event.objects.get(event_id="e-other")
    assert friend.payload == {"email": "else@example.com", "friend": "erased"}


def test_copy_is_made_by_a_worker_and_waited_for(contact: Contact) -> None:
    path = ask(contact, "export")
    assert "put together" in strict_client().get(path).content.decode()
    for kind in ("json", "html"):
        waiting = strict_client().post(path, {"copy": kind})
        assert_private(waiting)
        assert "put together" in waiting.content.decode()
    assert PersonalCopy.objects.count() == 1
    copy_task()
    assert "put together" not in strict_client().get(path).content.decode()
    assert strict_client().post(path, {"copy": "json"})["Content-Type"] == "application/json"


def test_copy_whose_time_is_over_is_made_again(contact: Contact) -> None:
    path = ask(contact, "export")
    copy_task()
    PersonalCopy.objects.update(expires_at=Now())
    copy_task()
    assert bytes(PersonalCopy.objects.get().body) == b""
    assert "put together" in strict_client().post(path, {"copy": "json"}).content.decode()
    copy_task()
    assert json.loads(strict_client().post(path, {"copy": "json"}).content)["profile"]


def test_erasure_that_is_asked_for_makes_no_copy(contact: Contact) -> None:
    ask(contact, "erase")
    assert not PersonalCopy.objects.exists()


@pytest.mark.parametrize("locale", ["en", "de"])
def test_copy_is_shown_in_words(contact: Contact, locale: str) -> None:
    path = ask(contact, "export")
    Contact.objects.filter(pk=contact.pk).update(locale=locale, weekly_limit=3)
    copy_task()
    html = strict_client().post(path, {"copy": "html"}).content.decode()
    shown = html[html.index("<section") :]
    words = {
        "en": ("What you agreed to", "E‑mails in seven days at most", "<dd>Yes</dd>"),
        "de": ("Worin Sie eingewilligt haben", "E‑Mails in sieben Tagen höchstens", "<dd>Ja</dd>"),
    }[locale]
    for word in (*words, f"nick: {CANARY}", f"cart: {CANARY}"):
        assert word in shown
    for raw in ("None", "True", "{&#x27;", "topic__key", "weekly_limit", "+00:00"):
        assert raw not in shown


def test_copy_has_everything(contact: Contact) -> None:
    path = ask(contact, "export")
    copy_task()
    page = strict_client().get(path)
    assert CANARY not in page.content.decode()  # a scanner fetches nobody's data
    response = strict_client().post(path, {"copy": "json"})
    assert_private(response)
    assert "attachment" in response["Content-Disposition"]
    copy = json.loads(response.content)
    assert set(copy) == {part.name for part in parts()}
    assert copy["profile"][0]["attributes"] == {"nick": CANARY}
    assert {line["purpose"] for line in copy["consents"]} == {"mail", "tracking"}
    assert [event["user_id"] for event in copy["events"]] == [contact.user_id]
    assert copy["messages"][0]["context"]["payload"]["cart"] == CANARY
    assert copy["campaigns"][0]["entry_key"].endswith(CANARY)
    assert copy["receipts"]
    html = strict_client().post(path, {"copy": "html"})
    assert_private(html)
    assert CANARY in html.content.decode()


def test_link_is_good_for_seven_days_and_its_own_purpose(contact: Contact) -> None:
    path = ask(contact, "export")
    assert strict_client().post(path, {"erase": "yes"}).status_code == 410
    assert not Erasure.objects.exists()
    Message.objects.update(created_at=now() - timedelta(days=8))
    assert strict_client().get(path).status_code == 410
    assert strict_client().post(path, {"copy": "json"}).status_code == 410


def test_link_of_an_address_they_left_is_closed(contact: Contact) -> None:
    path = ask(contact, "erase")
    Contact.objects.filter(pk=contact.pk).update(
        email="new@example.org", email_normalized="new@example.org"
    )
    assert strict_client().post(path, {"erase": "yes"}).status_code == 410


def test_any_other_mails_token_is_no_proof(contact: Contact) -> None:
    message = Message.objects.get(contact=contact)
    assert get(message, PERSONAL_DATA).status_code == 410
    assert post(message, PERSONAL_DATA, {"copy": "json"}).status_code == 410


def test_asking_twice_a_day_sends_one_mail(contact: Contact) -> None:
    sent = SandboxMail.objects.count()
    for _ in range(3):
        ask(contact, "export")
    assert SandboxMail.objects.count() == sent + 1
    message = Message.objects.filter(contact=contact).first()
    html = post(message, PREFERENCES, {"data": "export"}).content.decode()
    assert "today already" in html


def test_another_address_on_the_same_day_is_sent_the_link_as_well(contact: Contact) -> None:
    ask(contact, "export")
    Contact.objects.filter(pk=contact.pk).update(
        email="new@example.org", email_normalized="new@example.org"
    )
    ask(contact, "export")
    assert SandboxMail.objects.latest("pk").to_email == "new@example.org"


def test_who_cannot_be_mailed_is_told(contact: Contact) -> None:
    Contact.objects.filter(pk=contact.pk).update(is_active=False)
    message = Message.objects.get(contact=contact)
    html = post(message, PREFERENCES, {"data": "export"}).content.decode()
    assert "cannot send you" in html


# What these hold is our own, or no person's.
OURS = {Sender, EventType, Suppression}
PERSONAL = {"email", "to_email", "payload", "context", "body", "raw", "evidence", "user_id"}


def test_every_model_that_knows_people_belongs_to_a_part() -> None:
    known = {model for part in parts() for model in part.models}
    for model in apps.get_models():
        if model._meta.app_label in ROOMS and model not in OURS and not model._meta.proxy:
            assert model in known or not knows_people(model), f"{model.__name__}: see contacts.dsar"


ROOMS = {
    *("contacts", "events", "suppression", "content", "delivery"),
    *("campaigns", "webhooks", "monitoring", "preferences"),
}


def knows_people(model: type[Model]) -> bool:
    fields = model._meta.concrete_fields
    to_people = [
        field
        for field in fields
        if isinstance(field, ForeignKey) and field.related_model in (Contact, Message)
    ]
    return bool(to_people) or bool(PERSONAL & {field.name for field in fields})


def test_page_of_the_erased_is_gone(contact: Contact) -> None:
    message = Message.objects.get(contact=contact)
    Contact.objects.filter(pk=contact.pk).update(erased_at=Now())
    with CaptureQueriesContext(connection) as queries:
        assert strict_client().get(path_of(message, PREFERENCES)).status_code == 404
    assert len(queries) <= 2

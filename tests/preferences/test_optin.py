"""Subscribing by API and confirming by mail, through to what is delivered then."""

import re
from email import message_from_bytes, policy
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from common.addresses import parse_address
from contacts.models import Consent, Contact, Subscription, Topic
from contacts.services import record_consent
from contacts.states import ConsentState, TopicPolicy
from delivery.engine import deliver_batch
from delivery.links import PREFERENCES, UNSUBSCRIBE
from delivery.models import Message, SandboxMail
from events.models import Scope
from suppression.models import Suppression
from suppression.services import SuppressionRequest, suppress_addresses
from suppression.states import SuppressionReason
from tests.factories import (
    ContactFactory,
    MessageFactory,
    SenderFactory,
    TopicFactory,
    make_api_key,
)
from tests.preferences.pages import assert_private, post, strict_client

pytestmark = pytest.mark.django_db


@pytest.fixture
def topic() -> Topic:
    SenderFactory(is_default=True)
    return TopicFactory(
        key="tips", name="Tips & tricks", policy=TopicPolicy.OPT_IN, double_opt_in=True
    )


def subscribe(status: int = 200, *, scopes: Any = (Scope.CONTACTS_WRITE,), **more: Any) -> Any:
    _, token = make_api_key(scopes=list(scopes))
    document = {"email": "Ada@Example.com", "topic": "tips", "source": "footer form", **more}
    response = Client().post(
        "/api/v1/subscriptions",
        document,
        content_type="application/json",
        headers={"authorization": f"Bearer {token}"},
    )
    assert response.status_code == status, response.content
    return response.json()


def deliver() -> None:
    for stream in ("transactional", "marketing"):
        while deliver_batch(stream, limit=50):
            pass


def confirm_path() -> str:
    raw = bytes(SandboxMail.objects.get().raw)
    body = message_from_bytes(raw, policy=policy.default).get_body(("plain",)).get_content()
    url = re.search(r"https?://\S+/c/\S+", body)[0]
    return url.removeprefix(settings.PUBLIC_URL)


def ledger() -> list[tuple[str, str]]:
    return list(Consent.objects.order_by("pk").values_list("state", "source"))


def newsletter_to(contact: Contact, topic: Topic) -> Message:
    mail = MessageFactory(stream="marketing", topic=topic, contact=contact)
    deliver()
    mail.refresh_from_db()
    return mail


def test_double_opt_in_from_the_form_to_the_first_newsletter(topic: Topic) -> None:
    assert subscribe(evidence="ticked at 12:01") == {"state": "pending", "topic": "tips"}
    deliver()
    contact = Contact.objects.get()
    assert newsletter_to(contact, topic).reason == "consent_pending"
    mail = SandboxMail.objects.get()
    assert mail.to_email == "Ada@example.com"
    assert b"List-Unsubscribe" not in bytes(mail.raw)
    assert b"Ada" not in bytes(mail.raw).replace(b"To: Ada@example.com", b"")
    page = strict_client().get(confirm_path())
    assert_private(page)
    assert "Tips &amp; tricks" in page.content.decode()
    assert ledger() == [("pending", "footer form")]  # looking has confirmed nothing
    answer = strict_client().post(confirm_path())
    assert_private(answer)
    assert (answer.status_code, "confirmed" in answer.content.decode()) == (200, True)
    assert ledger() == [("pending", "footer form"), ("granted", "confirm page")]
    pending, granted = Consent.objects.order_by("pk")
    assert pending.evidence == "ticked at 12:01"
    assert f"confirms line {pending.pk} of " in granted.evidence
    assert newsletter_to(contact, topic).state == "sent"


def test_asking_again_the_same_day_sends_one_mail_and_writes_one_line(topic: Topic) -> None:
    for _ in range(3):
        assert subscribe()["state"] == "pending"
    deliver()
    assert SandboxMail.objects.count() == 1
    assert ledger() == [("pending", "footer form")]


@pytest.mark.parametrize("scope", ["marketing", "topic:tips", "all"])
def test_who_is_blocked_is_not_promised_mail(topic: Topic, scope: str) -> None:
    subscribe()
    deliver()
    address = parse_address("ada@example.com")
    suppress_addresses([SuppressionRequest(address, scope, SuppressionReason.MANUAL, "test")])
    html = strict_client().post(confirm_path()).content.decode()
    assert "list of those we do not write to" in html
    assert "will get our" not in html


def test_link_is_closed_once_they_want_no_marketing_at_all(topic: Topic) -> None:
    subscribe()
    deliver()
    strict_client().post(confirm_path())
    other = MessageFactory(contact=Contact.objects.get(), stream="marketing", state="sent")
    post(other, UNSUBSCRIBE, {"scope": "all"})
    assert strict_client().post(confirm_path()).status_code == 410
    assert Contact.objects.get().objected_at is not None


def test_another_address_on_the_same_day_is_asked_as_well(topic: Topic) -> None:
    for email in ("typo@example.com", "ada@example.com"):
        subscribe(user_id="u1", email=email)
        deliver()
    assert list(SandboxMail.objects.order_by("pk").values_list("to_email", flat=True)) == [
        "typo@example.com",
        "ada@example.com",
    ]


def test_tick_on_a_page_that_was_passed_on_asks_the_owner(topic: Topic) -> None:
    other = MessageFactory(
        stream="marketing", topic=TopicFactory(), state="sent", contact__email="ada@example.com"
    )
    ticks = {"form": "preferences", "topic": ["news", "tips"]}
    for _ in range(2):
        html = post(other, PREFERENCES, ticks).content.decode()
        assert "Waiting for your confirmation." in html
    assert ledger() == [("pending", "preferences page")]
    assert newsletter_to(other.contact, topic).reason == "consent_pending"
    assert SandboxMail.objects.count() == 1
    strict_client().post(confirm_path())
    assert newsletter_to(other.contact, topic).state == "sent"
    post(other, PREFERENCES, ticks)
    assert [state for state, _ in ledger()] == ["pending", "granted"]


def test_tick_of_a_topic_to_confirm_brings_nothing_back_by_itself(topic: Topic) -> None:
    other = MessageFactory(
        stream="marketing", topic=TopicFactory(), state="sent", contact__email="ada@example.com"
    )
    post(other, PREFERENCES, {"stop": "all"})
    post(other, PREFERENCES, {"form": "preferences", "topic": ["tips"]})
    assert newsletter_to(other.contact, other.topic).state == "skipped"
    assert newsletter_to(other.contact, topic).state == "skipped"
    assert Contact.objects.get().objected_at is not None
    strict_client().post(confirm_path())
    assert newsletter_to(other.contact, topic).state == "sent"
    assert newsletter_to(other.contact, other.topic).state == "skipped"


def test_tick_of_somebody_who_must_not_be_mailed_asks_nobody(topic: Topic) -> None:
    other = MessageFactory(
        stream="marketing", topic=TopicFactory(), state="sent", contact__email="ada@example.com"
    )
    address = parse_address("ada@example.com")
    reason = SuppressionReason.COMPLAINT
    suppress_addresses([SuppressionRequest(address, "marketing", reason, "test")])
    post(other, PREFERENCES, {"form": "preferences", "topic": ["news", "tips"]})
    assert ledger() == []
    assert not Message.objects.filter(stream="transactional").exists()


def test_confirming_twice_is_confirming_once(topic: Topic) -> None:
    subscribe()
    deliver()
    for _ in range(2):
        assert strict_client().post(confirm_path()).status_code == 200
    assert [state for state, _ in ledger()] == ["pending", "granted"]
    assert subscribe()["state"] == "granted"
    deliver()
    assert SandboxMail.objects.count() == 1


def test_link_is_closed_once_the_person_has_said_no(topic: Topic) -> None:
    subscribe()
    deliver()
    strict_client().post(confirm_path())
    record_consent(Contact.objects.get(), topic, ConsentState.WITHDRAWN, source="test")
    assert strict_client().get(confirm_path()).status_code == 410
    assert strict_client().post(confirm_path()).status_code == 410
    assert Subscription.objects.get().state == ConsentState.WITHDRAWN


def test_link_is_closed_for_another_address(topic: Topic) -> None:
    subscribe()
    deliver()
    Contact.objects.update(email="new@example.org", email_normalized="new@example.org")
    assert strict_client().post(confirm_path()).status_code == 410
    assert Subscription.objects.get().state == ConsentState.PENDING


def test_confirming_lifts_the_own_unsubscribe_and_brings_back_no_other_topic(topic: Topic) -> None:
    ContactFactory(email="ada@example.com")
    TopicFactory(key="carts")
    ask(SuppressionReason.UNSUBSCRIBE)
    assert subscribe()["state"] == "pending"
    deliver()
    strict_client().post(confirm_path())
    assert set(Suppression.objects.values_list("scope", "reason")) == {
        ("topic:carts", "unsubscribe")
    }


def ask(reason: SuppressionReason, scope: str = "marketing") -> None:
    address = parse_address("ada@example.com")
    suppress_addresses([SuppressionRequest(address, scope, reason, "test")])


@pytest.mark.parametrize("double_opt_in", [True, False])
@pytest.mark.parametrize(
    "reason", [r for r in SuppressionReason if r != SuppressionReason.UNSUBSCRIBE]
)
def test_who_must_not_be_mailed_is_not_asked(
    topic: Topic, reason: SuppressionReason, double_opt_in: bool
) -> None:
    Topic.objects.update(double_opt_in=double_opt_in)
    ask(reason)
    assert subscribe()["state"] == "suppressed"
    assert not Contact.objects.exists()
    assert not Message.objects.exists()


def test_without_double_opt_in_the_callers_word_counts(topic: Topic) -> None:
    Topic.objects.update(double_opt_in=False)
    assert subscribe(evidence="signed form 17", user_id="u-1")["state"] == "granted"
    assert subscribe(user_id="u-1")["state"] == "granted"
    line = Consent.objects.get()
    assert (line.state, line.source, line.evidence) == ("granted", "footer form", "signed form 17")
    assert newsletter_to(Contact.objects.get(user_id="u-1"), topic).state == "sent"


def test_callers_word_does_not_lift_an_unsubscribe(topic: Topic) -> None:
    Topic.objects.update(double_opt_in=False)
    ask(SuppressionReason.UNSUBSCRIBE)
    assert subscribe()["state"] == "suppressed"
    assert newsletter_to(Contact.objects.get(), topic).reason == "suppressed"


def test_mail_speaks_the_persons_language(topic: Topic) -> None:
    subscribe(locale="de")
    deliver()
    assert "Bitte bestätigen" in SandboxMail.objects.get().subject
    assert '<html lang="de"' in strict_client().get(confirm_path()).content.decode()


def test_address_of_another_user_id_is_409(topic: Topic) -> None:
    ContactFactory(user_id="u-1", email="ada@example.com")
    ContactFactory(user_id="u-2", email="bob@example.com")
    assert subscribe(409, user_id="u-2")["code"] == "address_taken"
    assert ledger() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"email": "nobody"},
        {"email": "a@example.com, b@example.com"},
        {"email": None},
        {"email": "a\x00@example.com"},
        {"topic": "none"},
        {"source": ""},
        {"locale": "tlh"},
        {"user_id": "x" * 201},
    ],
)
def test_bad_field_is_400_and_names_it(topic: Topic, wrong: dict[str, Any]) -> None:
    body = subscribe(400, **wrong)
    assert body["code"] == "invalid"
    assert body["details"][0]["path"] in wrong


def test_key_without_the_scope_is_403(topic: Topic) -> None:
    subscribe(403, scopes=[Scope.EVENTS_WRITE])

"""Messages and dead letters: what became of a mail, and what an operator can do about it."""

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse

from delivery.bounces import RETURNED
from delivery.explanations import RETURNED_WORDS, advice_of, sentence_of
from delivery.models import Attempt, Bounce, Message
from delivery.states import MessageState, Reason
from tests.factories import ContactFactory, MessageFactory, ProviderFactory, TemplateFactory

LIST = "/admin/delivery/message/"
DEAD = "/admin/delivery/deadletter/"


def _do(client: Client, message: Message, name: str, *, confirmed: bool = True) -> int:
    url = reverse("admin:delivery_message_do", args=[message.pk, name])
    return client.post(url, {"confirmed": "yes"} if confirmed else {}).status_code


def _state(message: Message) -> str:
    message.refresh_from_db()
    return message.state


def test_message_page_says_why_it_was_not_sent(operator: Client) -> None:
    message = MessageFactory(
        state=MessageState.SKIPPED, reason=Reason.SUPPRESSED, detail="topic:news"
    )
    page = operator.get(reverse("admin:delivery_message_change", args=[message.pk])).text
    assert "It was not sent. The address is suppressed (mail about “news”)." in page


def test_every_reason_has_advice_or_needs_none() -> None:
    silent = {Reason.NEEDS_SMTPUTF8, Reason.DISCARDED}
    for reason in Reason:
        message = Message(state=MessageState.SKIPPED, reason=reason)
        assert bool(advice_of(message)) is (reason not in silent)


@pytest.mark.parametrize("state", list(MessageState))
def test_every_state_has_a_sentence(state: MessageState) -> None:
    assert sentence_of(Message(state=state)).endswith(".")


@pytest.mark.parametrize(
    ("state", "name", "expected"),
    [
        (MessageState.UNKNOWN, "mark-sent", MessageState.SENT),
        (MessageState.UNKNOWN, "resend", MessageState.QUEUED),
        (MessageState.DEAD, "replay", MessageState.QUEUED),
        (MessageState.HELD, "replay", MessageState.QUEUED),
        (MessageState.FAILED, "discard", MessageState.SKIPPED),
        (MessageState.SENT, "replay", MessageState.SENT),
        (MessageState.SENT, "resend", MessageState.SENT),
    ],
)
def test_operation_moves_the_message_as_its_service_allows(
    operator: Client, state: MessageState, name: str, expected: MessageState
) -> None:
    message = MessageFactory(state=state)
    assert _do(operator, message, name) == 302
    assert _state(message) == expected


def test_operation_is_written_to_the_log(operator: Client) -> None:
    message = MessageFactory(state=MessageState.DEAD)
    _do(operator, message, "replay")
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.change_message) == (str(message.pk), "Replay")


def test_operation_asks_before_it_acts(operator: Client) -> None:
    message = MessageFactory(state=MessageState.UNKNOWN)
    url = reverse("admin:delivery_message_do", args=[message.pk, "resend"])
    assert "gets this mail twice" in operator.get(url).text
    assert _do(operator, message, "resend", confirmed=False) == 200
    assert _state(message) == MessageState.UNKNOWN


@pytest.mark.parametrize("name", ["replay", "discard", "mark-sent", "resend"])
def test_operation_is_refused_to_those_who_only_view(viewer: Client, name: str) -> None:
    message = MessageFactory(state=MessageState.HELD)
    assert _do(viewer, message, name) == 403
    assert _state(message) == MessageState.HELD


def test_message_cannot_be_edited_or_deleted_by_hand(operator: Client) -> None:
    message = MessageFactory()
    page = reverse("admin:delivery_message_change", args=[message.pk])
    assert operator.post(page, {"state": "sent"}).status_code == 403
    assert operator.post(page.replace("change", "delete"), {"post": "yes"}).status_code == 403


def test_list_actions_are_not_offered_to_those_who_only_view(viewer: Client) -> None:
    MessageFactory(state=MessageState.DEAD)
    assert "_selected_action" not in viewer.get(DEAD).text


def test_selected_dead_letters_are_replayed_after_a_page_with_their_number(
    operator: Client,
) -> None:
    dead = MessageFactory.create_batch(3, state=MessageState.DEAD)
    chosen = [str(message.pk) for message in dead[:2]]
    asked = operator.post(DEAD, {"action": "replay", "_selected_action": chosen})
    assert "2 dead letters" in asked.text
    assert [_state(message) for message in dead] == [MessageState.DEAD] * 3
    operator.post(DEAD, {"action": "replay", "_selected_action": chosen, "confirmed": "yes"})
    assert [_state(message) for message in dead] == ["queued", "queued", "dead"]


def test_filtered_dead_letters_are_replayed_as_a_set(operator: Client) -> None:
    refused = MessageFactory.create_batch(2, state="failed", reason=Reason.REFUSED)
    other = MessageFactory(state="dead", reason=Reason.CRASHED)
    url = f"{DEAD}?reason__exact=refused"
    form = {"action": "replay", "_selected_action": [str(refused[0].pk)], "select_across": "1"}
    assert "2 dead letters" in operator.post(url, form).text
    operator.post(url, {**form, "confirmed": "yes"})
    assert [_state(message) for message in (*refused, other)] == ["queued", "queued", "dead"]


def test_dead_letters_hold_only_what_failed_for_good(operator: Client) -> None:
    for state in MessageState:
        MessageFactory(state=state, contact__name=f"in {state.value}")
    page = operator.get(DEAD).text
    found = {state for state in MessageState if f"in {state.value}<" in page}
    assert found == {MessageState.FAILED, MessageState.DEAD}


@pytest.mark.parametrize(
    "term",
    ["Ada.L@Example.com", "order-7", "lovelace", "ada.l@", "{pk}", "\x00"],
)
def test_search_finds_a_message_by_what_people_know(operator: Client, term: str) -> None:
    contact = ContactFactory(
        name="Ada Lovelace", email="ada.l@example.com", email_normalized="ada.l@example.com"
    )
    message = MessageFactory(contact=contact, origin_event_id="order-7")
    MessageFactory(contact__name="Somebody Else", origin_event_id="order-8")
    page = operator.get(LIST, {"q": term.format(pk=message.pk)}).text
    assert "Ada Lovelace" in page
    assert ("Somebody Else" in page) is (term == "\x00")


def test_as_sent_is_a_document_that_can_do_nothing(operator: Client) -> None:
    message = MessageFactory()
    page = operator.get(reverse("admin:delivery_message_change", args=[message.pk])).text
    assert f'sandbox src="/admin/delivery/message/{message.pk}/document/"' in page
    response = operator.get(reverse("admin:delivery_message_document", args=[message.pk]))
    assert "Hello Ada" in response.text
    policy = response["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src * data:; style-src 'unsafe-inline';")
    assert policy.endswith("sandbox")
    assert response["X-Frame-Options"] == "SAMEORIGIN"


def test_message_whose_template_fails_still_has_its_page(operator: Client) -> None:
    broken = TemplateFactory(version__html="{{ user.name ").published
    message = MessageFactory(template_version=broken)
    page = reverse("admin:delivery_message_change", args=[message.pk])
    assert "The template cannot be rendered" in operator.get(page).text
    document = reverse("admin:delivery_message_document", args=[message.pk])
    assert operator.get(document).status_code == 200


def test_every_way_of_coming_back_has_words() -> None:
    assert RETURNED_WORDS.keys() == RETURNED


def test_failed_attempt_shows_what_was_asked_and_answered_but_no_address(
    operator: Client,
) -> None:
    message = MessageFactory(state=MessageState.FAILED, reason=Reason.REFUSED)
    request = "SMTP server: from shop@example.com to a***@e***, 4,312 bytes, sha256 ab12…"
    Attempt.objects.filter(message=message).update(request=request)
    Bounce.objects.create(message=message, bounce_class="hard", detail="550 5.1.1", source="smtp")
    page = operator.get(reverse("admin:delivery_message_change", args=[message.pk])).text
    assert request in page
    assert "Came back: the address is no good" in page


def test_e29_moment_before_the_hand_over_is_told_by_another_clock(operator: Client) -> None:
    message = MessageFactory(state=MessageState.SENT, sent_at=Now(), handed_over_at=Now())
    Message.objects.filter(pk=message.pk).update(delivered_at=Now() - timedelta(hours=1))
    page = operator.get(reverse("admin:delivery_message_change", args=[message.pk])).text
    assert "By the provider’s clock" in page or "By the provider&#x27;s clock" in page
    assert _state(message) == MessageState.SENT


def test_mail_without_a_sign_of_life_can_be_listed(operator: Client) -> None:
    silent = MessageFactory(state=MessageState.SENT, sent_at=Now(), provider=ProviderFactory())
    told = MessageFactory(state=MessageState.SENT, provider=silent.provider, delivered_at=Now())
    Message.objects.update(sent_at=Now() - timedelta(hours=30))
    page = operator.get(f"{LIST}?signal=none").text
    assert str(silent.pk) in page
    assert str(told.pk) not in page

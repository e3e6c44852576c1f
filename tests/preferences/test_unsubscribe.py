"""`/u/<token>`: the human page and RFC 8058's one-click POST."""

from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.http import HttpResponse
from django.test import Client

from common.signing import sign_uuid
from contacts.models import Consent
from contacts.states import ConsentState
from delivery.links import unsubscribe_url
from delivery.models import Message
from suppression.models import Suppression
from tests.factories import MessageFactory, SenderFactory, TopicFactory

pytestmark = pytest.mark.django_db

FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def message() -> Message:
    return MessageFactory(
        stream="marketing",
        topic=TopicFactory(name="Shop news & sales"),
        state="sent",
        sender__name="Ada's Shop",
        contact__email="ada@example.com",
    )


def path_of(message: Message) -> str:
    return unsubscribe_url(message.pk).removeprefix(settings.PUBLIC_URL)


def strict_client() -> Client:
    """A browser that comes with nothing, against a server that checks CSRF."""
    return Client(enforce_csrf_checks=True)


def post(message: Message, data: Any, **options: Any) -> HttpResponse:
    return strict_client().post(path_of(message), data, **options)


def state_of_everything() -> tuple[Any, ...]:
    return (
        list(Suppression.objects.values_list("email", "scope", "reason", "source")),
        list(Consent.objects.values_list("state", "source")),
        list(Message.objects.values_list("unsubscribed_at")),
    )


def assert_private(response: HttpResponse) -> None:
    assert response["Referrer-Policy"] == "no-referrer"
    assert response["Cache-Control"] == "no-store"
    assert response["X-Robots-Tag"] == "noindex, nofollow"
    assert response["X-Frame-Options"] == "DENY"
    assert "default-src 'none'" in response["Content-Security-Policy"]
    assert "script-src" not in response["Content-Security-Policy"]
    assert not response.cookies
    assert "Cookie" not in response.get("Vary", "")


@pytest.mark.parametrize("method", ["get", "head"])
def test_looking_at_the_page_changes_nothing(message: Message, method: str) -> None:
    before = state_of_everything()
    response = getattr(strict_client(), method)(path_of(message))
    assert response.status_code == 200
    assert_private(response)
    assert state_of_everything() == before


def test_page_names_shop_and_topic_and_masks_the_address(message: Message) -> None:
    html = strict_client().get(path_of(message)).content.decode()
    assert "Ada&#x27;s Shop" in html
    assert "Unsubscribe from “<bdi>Shop news &amp; sales</bdi>”" in html
    assert "Unsubscribe from all marketing" in html
    assert "a***@e***" in html
    assert "ada@example.com" not in html
    assert "<script" not in html


def test_page_of_a_mail_without_topic_has_one_button() -> None:
    SenderFactory(name="The default", is_default=True)
    message = MessageFactory(state="sent", sender=None)
    html = strict_client().get(path_of(message)).content.decode()
    assert "The default" in html
    assert html.count("<button") == 1


@pytest.mark.parametrize("multipart", [False, True])
def test_one_click_suppresses_at_once(message: Message, multipart: bool) -> None:
    data: Any = {"List-Unsubscribe": "One-Click"}
    if multipart:
        response = post(message, data)
    else:
        response = post(message, "List-Unsubscribe=One-Click", content_type=FORM)
    assert response.status_code == 200
    assert response["Content-Type"] == "text/plain"
    assert response.content == b"Unsubscribed.\n"
    assert_private(response)
    suppressions, consents, ((unsubscribed_at,),) = state_of_everything()
    assert suppressions == [("ada@example.com", "marketing", "unsubscribe", "one-click")]
    assert consents == 2 * [(ConsentState.WITHDRAWN, "one-click")]
    assert unsubscribed_at is not None


def test_one_click_again_changes_nothing(message: Message) -> None:
    post(message, {"List-Unsubscribe": "One-Click"})
    before = state_of_everything()
    assert post(message, {"List-Unsubscribe": "One-Click"}).status_code == 200
    assert state_of_everything() == before


@pytest.mark.parametrize(("choice", "scope"), [("topic", "topic:news"), ("all", "marketing")])
def test_button_suppresses_in_its_scope(message: Message, choice: str, scope: str) -> None:
    response = post(message, {"scope": choice})
    assert response.status_code == 200
    assert_private(response)
    assert "You are unsubscribed" in response.content.decode()
    suppressions, consents, ((unsubscribed_at,),) = state_of_everything()
    assert suppressions == [("ada@example.com", scope, "unsubscribe", "unsubscribe page")]
    lines = {"topic": 1, "all": 2}[choice]  # of the topic, and of marketing as a whole
    assert consents == lines * [(ConsentState.WITHDRAWN, "unsubscribe page")]
    assert unsubscribed_at is not None


@pytest.mark.parametrize("data", [{}, {"scope": "topics"}, {"List-Unsubscribe": "Two-Click"}])
def test_anything_else_asks_again(message: Message, data: dict[str, str]) -> None:
    before = state_of_everything()
    response = post(message, data)
    assert response.status_code == 400
    assert "Unsubscribe from all marketing" in response.content.decode()
    assert "Nothing was changed." in response.content.decode()
    assert state_of_everything() == before


def test_topic_button_of_a_mail_without_topic_asks_again() -> None:
    assert post(MessageFactory(state="sent"), {"scope": "topic"}).status_code == 400


def test_address_of_the_mail_and_their_own_are_suppressed_after_the_contact_moved(
    message: Message,
) -> None:
    message.contact.email = message.contact.email_normalized = "new@example.org"
    message.contact.save()
    post(message, {"scope": "all"})
    both = {"ada@example.com", "new@example.org"}
    assert set(Suppression.objects.values_list("email", flat=True)) == both
    assert "a***@e***" in strict_client().get(path_of(message)).content.decode()


def test_unsubscribing_from_a_queued_mail_does_not_pass_it_for_sent(message: Message) -> None:
    Message.objects.update(state="queued")
    post(message, {"List-Unsubscribe": "One-Click"})
    assert Message.objects.get().state == "queued"


def bad_tokens(message: Message) -> list[str]:
    token = path_of(message).removeprefix("/u/")
    flipped = [token[:i] + ("A" if c != "A" else "B") + token[i + 1 :] for i, c in enumerate(token)]
    return [*flipped, token[:-1], token + "A", "x", sign_uuid("click", message.pk), "%00", "ü"]


def test_tampered_token_is_404_and_changes_nothing(message: Message) -> None:
    before = state_of_everything()
    for token in bad_tokens(message):
        for response in (
            strict_client().get(f"/u/{token}"),
            strict_client().post(f"/u/{token}", {"List-Unsubscribe": "One-Click"}),
        ):
            assert response.status_code == 404
            assert "This link does not work" in response.content.decode()
            assert_private(response)
    assert state_of_everything() == before


def test_token_of_a_message_that_is_gone_is_404(message: Message) -> None:
    path = path_of(message)
    message.delete()
    assert strict_client().get(path).status_code == 404


@pytest.mark.parametrize("method", ["put", "patch", "delete", "options"])
def test_other_methods_are_405(message: Message, method: str) -> None:
    assert getattr(strict_client(), method)(path_of(message)).status_code == 405


@pytest.mark.django_db(transaction=True)
def test_database_away_is_503_with_retry_after(message: Message) -> None:
    port = connection.settings_dict["PORT"]
    connection.close()
    connection.settings_dict["PORT"] = "1"
    try:
        response = post(message, {"List-Unsubscribe": "One-Click"})
        shown = strict_client().get(path_of(message))
    finally:
        connection.close()
        connection.settings_dict["PORT"] = port
    assert response.status_code == 503
    assert response["Retry-After"]
    assert_private(response)
    assert "Nothing was changed." in response.content.decode()
    assert shown.status_code == 503
    assert "cannot show this page" in shown.content.decode()


def test_page_is_one_query(message: Message, django_assert_num_queries: Any) -> None:
    client, path = strict_client(), path_of(message)
    with django_assert_num_queries(1):
        client.get(path)

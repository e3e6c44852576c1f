"""`/v/<token>`: the mail in a browser."""

from email import message_from_bytes, policy

import pytest
from django.conf import settings
from django.db.models.functions import Now

from contacts.models import Contact
from delivery.engine import deliver_batch
from delivery.links import VIEW, link
from delivery.models import Message, SandboxMail
from tests.factories import MessageFactory, TemplateFactory, TopicFactory
from tests.preferences.pages import assert_private, get, strict_client

pytestmark = pytest.mark.django_db


@pytest.fixture
def message() -> Message:
    template = TemplateFactory(version__html="<h1>Hej {{ user.name }}</h1><p>{{ view_url }}</p>")
    message = MessageFactory(
        stream="marketing", topic=TopicFactory(), template_version=template.published
    )
    deliver_batch("marketing", limit=5)
    return message


def test_page_is_the_html_part_byte_for_byte(message: Message) -> None:
    parsed = message_from_bytes(bytes(SandboxMail.objects.get().raw), policy=policy.default)
    sent = parsed.get_body(("html",)).get_payload(decode=True)
    response = get(message, VIEW)
    assert response.content == sent.replace(b"\r\n", b"\n")
    assert link(VIEW, message.pk) in response.content.decode()
    assert settings.PUBLIC_URL in response.content.decode()


def test_page_is_a_sandbox_without_scripts(message: Message) -> None:
    response = get(message, VIEW)
    assert_private(response)
    policy = response["Content-Security-Policy"]
    assert "sandbox allow-popups" in policy
    assert "allow-scripts" not in policy
    assert "form-action 'none'" in policy


def test_nothing_is_shown_of_who_was_erased_or_of_what_proves_something(message: Message) -> None:
    Message.objects.update(context={"payload": {}, "action": "confirm", "about": {}})
    assert get(message, VIEW).status_code == 404
    Message.objects.update(context={"payload": {}})
    assert get(message, VIEW).status_code == 200
    Contact.objects.update(erased_at=Now())
    assert get(message, VIEW).status_code == 404


def test_mail_that_cannot_be_made_any_more_is_404(message: Message) -> None:
    Message.objects.update(template_version=TemplateFactory(version__subject="{{ x }}").published)
    assert get(message, VIEW).status_code == 404


def test_page_takes_no_post(message: Message) -> None:
    path = link(VIEW, message.pk).removeprefix(settings.PUBLIC_URL)
    assert strict_client().post(path).status_code == 405

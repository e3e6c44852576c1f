"""A mail over real SMTP comes back over real IMAP, and its address is left alone."""

from collections.abc import Iterator
from typing import Any

import pytest

from delivery.connections import pool
from delivery.engine import drain
from delivery.models import Message
from suppression.models import Suppression
from tests.delivery.test_smtp import Inbox, inbox, smtp_message  # noqa: F401 - a fixture
from tests.factories import MessageFactory, TopicFactory
from tests.webhooks.fakeimap import FakeImap, url_of
from webhooks.models import Receipt
from webhooks.services import drain as drain_feedback
from webhooks.tasks import poll_bounces

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def mailbox(settings: Any) -> Iterator[FakeImap]:
    server = FakeImap()
    settings.BOUNCE_ADDRESS = "bounces@mail.example.com"
    settings.UNSUBSCRIBE_ADDRESS = "unsub@mail.example.com"
    settings.BOUNCE_MAILBOX_URL = url_of(server)
    yield server
    server.close()
    pool.close()


def notification(sender: str, recipient: str) -> bytes:
    """What a server sends to the envelope's sender, without a word of the mail (RFC 3464)."""
    return (
        "From: MAILER-DAEMON@mx.example.net\r\n"
        f"To: {sender}\r\n"
        "Subject: Undelivered Mail\r\n"
        "Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n"
        "--b\r\nContent-Type: message/delivery-status\r\n\r\n"
        "Reporting-MTA: dns; mx.example.net\r\n\r\n"
        f"Final-Recipient: rfc822; {recipient}\r\nAction: failed\r\nStatus: 5.1.1\r\n--b--\r\n"
    ).encode()


def test_bounce_that_names_nothing_but_its_recipient_suppresses_the_address(
    inbox: Inbox,  # noqa: F811
    mailbox: FakeImap,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message = smtp_message(monkeypatch, inbox.url)  # type: ignore[attr-defined]
    drain("transactional", budget=5)
    (envelope,) = inbox.received
    assert envelope.mail_from != message.sender.email
    mailbox.put(notification(envelope.mail_from.lower(), "somebody.else@example.net"))
    poll_bounces()
    drain_feedback(budget=5)
    assert Receipt.objects.get().outcome[0]["effects"] == ["bounced_at", "suppressed:all"]
    assert Suppression.objects.get().email == message.email
    assert Message.objects.get().bounced_at is not None
    # And the next mail to it is not sent.
    MessageFactory(contact=message.contact, sender=message.sender)
    drain("transactional", budget=5)
    assert len(inbox.received) == 1
    skipped = Message.objects.latest("pk")
    assert (skipped.state, skipped.reason) == ("skipped", "suppressed")


def test_mail_to_the_unsubscribe_address_in_it_ends_marketing(
    inbox: Inbox,  # noqa: F811
    mailbox: FakeImap,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message = smtp_message(monkeypatch, inbox.url, stream="marketing", topic=TopicFactory())
    drain("marketing", budget=5)
    (envelope,) = inbox.received
    content: Any = envelope.content
    token = content.decode().partition("<mailto:")[2].partition("?")[0].replace("\r\n ", "")
    mailbox.put(f"From: x@example.net\r\nTo: {token}\r\nSubject: unsubscribe\r\n\r\n".encode())
    poll_bounces()
    drain_feedback(budget=5)
    suppression = Suppression.objects.get()
    assert (suppression.email, suppression.scope) == (message.email, "marketing")
    assert Message.objects.get().unsubscribed_at is not None

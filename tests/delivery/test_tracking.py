"""Mail that tells opens and clicks: to whom, how, and the same on every call (C16, S04)."""

import re
from datetime import timedelta
from email import message_from_bytes
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from contacts.ledger import record_tracking
from contacts.models import Contact
from contacts.states import ConsentState
from content.services import published_versions
from delivery import departures
from delivery.engine import deliver_batch
from delivery.link_store import KEPT, purge_links, store_links, url_of
from delivery.models import Link, Message, SandboxMail, Visit
from delivery.outbound import build_outbound, render_message
from delivery.preview import as_sent
from delivery.states import Stream
from delivery.tracking import link_id, read_click, read_open
from tests.factories import MessageFactory, TemplateFactory, TopicFactory

pytestmark = pytest.mark.django_db

HTML = (
    '<p>Hi <a href="https://shop.example/cart?a=1&amp;id={{ cart_id }}">your cart</a>, '
    '<a href="mailto:help@shop.example">help</a> '
    '<a href="https://shop.example/plain" data-track="off">plain</a> '
    '<a href="{{ unsubscribe_url }}">no more</a></p>'
)
ADDRESS = re.compile(r'/t/([co])/([\w-]+)(?:\.gif)?"')


def mail_to(*, may_track: bool = True, stream: Stream = Stream.MARKETING, **fields: Any) -> Message:
    version = fields.pop("template_version", None) or TemplateFactory(version__html=HTML).published
    return MessageFactory(
        stream=stream,
        topic=TopicFactory(),
        contact__may_track=may_track,
        template_version=version,
        context={"payload": {"cart_id": "c-1"}},
        **fields,
    )


def html_of(mail: SandboxMail) -> str:
    parts = message_from_bytes(bytes(mail.raw)).walk()
    return next(
        part.get_payload(decode=True).decode().replace("\r\n", "\n")
        for part in parts
        if part.get_content_type() == "text/html"
    )


def sent(message: Message) -> str:
    deliver_batch(message.stream, limit=10)
    message.refresh_from_db()
    assert message.state == "sent", message.detail
    return html_of(SandboxMail.objects.get(message=message))


def test_mail_to_somebody_who_agreed_has_tokens_of_its_own() -> None:
    message = mail_to()
    html = sent(message)
    (_, click), (_, opened) = ADDRESS.findall(html)
    link = link_id("https://shop.example/cart?a=1&id=c-1")
    assert read_click(click) == (message.pk, link)
    assert url_of(link) == "https://shop.example/cart?a=1&id=c-1"
    assert read_open(opened) == message.pk
    assert Message.objects.get().is_tracked


def test_nothing_else_of_it_is_changed() -> None:
    message = mail_to()
    expected = as_sent(message).html
    html = sent(message)
    html = re.sub(r'<img src="[^"]*/t/o/[^>]*>', "", html)
    html = re.sub(r'"[^"]*/t/c/[^"]*"', '"https://shop.example/cart?a=1&amp;id=c-1"', html)
    assert html.strip() == expected.strip()
    assert "data-track" not in html
    assert "/t/" not in expected
    assert f"{settings.PUBLIC_URL}/u/" in html


@pytest.mark.parametrize(
    ("may_track", "stream"),
    [(False, Stream.MARKETING), (True, Stream.TRANSACTIONAL), (False, Stream.TRANSACTIONAL)],
)
def test_mail_to_anybody_else_has_no_pixel_and_no_address_of_its_own(
    may_track: bool, stream: Stream
) -> None:
    pages = []
    for _ in range(2):
        html = sent(mail_to(may_track=may_track, stream=stream))
        assert "/t/" not in html
        assert "<img" not in html
        assert "data-track" not in html
        pages.append(re.sub(r"/[upv]/[\w-]+", "/own/", html))
    assert pages[0] == pages[1]
    assert not Link.objects.exists()
    assert not Message.objects.filter(is_tracked=True).exists()


def test_text_part_is_never_touched() -> None:
    mails = []
    for may_track in (True, False):
        message = mail_to(may_track=may_track)
        sent(message)
        raw = SandboxMail.objects.get(message=message).raw
        text = next(
            part.get_payload(decode=True)
            for part in message_from_bytes(bytes(raw)).walk()
            if part.get_content_type() == "text/plain"
        )
        mails.append(re.sub(rb"/[upv]/[\w-]+", b"/own/", text))
    assert mails[0] == mails[1]
    assert b"shop.example" in mails[0]


def test_mail_is_made_of_the_same_bytes_on_every_call() -> None:
    message = mail_to()
    assert message.sender is not None
    made = [
        build_outbound(
            Message.objects.get(),
            sender=message.sender,
            provider=message.sender.provider,
            address=message.email,
            has_metadata=True,
            is_tracked=True,
        )
        for _ in range(2)
    ]
    assert made[0].email.wire == made[1].email.wire
    assert made[0].links == made[1].links


def test_looking_at_a_mail_does_not_show_what_counts() -> None:
    message = mail_to()
    sent(message)
    assert "/t/" not in render_message(message, message.sender).html


def retried(message: Message) -> Message:
    """As after an answer that leaves it open whether the provider has it, and may be repeated."""
    Message.objects.update(state="retry", due_at=Now(), replay_until=Now() + timedelta(minutes=5))
    deliver_batch(Stream.MARKETING, limit=10)
    message.refresh_from_db()
    return message


@pytest.mark.audited(except_={"I3"}, why="the sandbox takes a repeated call as a mail of its own")
def test_mail_in_doubt_is_repeated_byte_for_byte() -> None:
    message = mail_to()
    sent(message)
    first = bytes(message.wire_hash or b"")
    assert retried(message).state == "sent"
    assert bytes(message.wire_hash or b"") == first
    one, other = SandboxMail.objects.values_list("raw", flat=True)
    assert bytes(one) == bytes(other)


def test_mail_in_doubt_is_not_offered_to_somebody_who_has_withdrawn_since() -> None:
    message = mail_to()
    sent(message)
    record_tracking([message.contact], ConsentState.WITHDRAWN, source="test")
    assert retried(message).state == "unknown"
    assert SandboxMail.objects.count() == 1


@pytest.mark.audited(except_={"I3"}, why="the sandbox takes a repeated call as a mail of its own")
def test_mail_in_doubt_stays_untracked_for_somebody_who_has_agreed_since() -> None:
    message = mail_to(may_track=False)
    sent(message)
    record_tracking([message.contact], ConsentState.GRANTED, source="test")
    assert retried(message).state == "sent"
    assert not message.is_tracked


def test_withdrawal_while_it_is_made_sends_it_untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    as_usual = departures.build_outbound

    def withdrawing(*args: Any, **options: Any) -> Any:
        made = as_usual(*args, **options)
        Contact.objects.update(may_track=False)
        return made

    monkeypatch.setattr(departures, "build_outbound", withdrawing)
    message = mail_to()
    assert deliver_batch(Stream.MARKETING, limit=10) is False
    assert not SandboxMail.objects.exists()
    monkeypatch.undo()
    assert "/t/" not in sent(message)


def test_number_of_queries_is_the_same_for_1_and_50_tracked_messages() -> None:
    version = TemplateFactory(version__html=HTML).published
    published_versions({version.pk})
    counts = []
    for size in (1, 50):
        for number in range(size):
            message = mail_to(template_version=version)
            Message.objects.filter(pk=message.pk).update(
                context={"payload": {"cart_id": f"{size} {number}".replace(" ", "-")}}
            )
        with CaptureQueriesContext(connection) as queries:
            deliver_batch(Stream.MARKETING, limit=50)
        counts.append(len(queries))
    assert counts[0] == counts[1]
    assert Link.objects.count() == SandboxMail.objects.count() == 51


def test_same_destination_is_kept_once_and_its_use_noted() -> None:
    url = "https://shop.example/"
    store_links({link_id(url): url})
    Link.objects.update(used_on=Now() - timedelta(days=3))
    store_links({link_id(url): "https://evil.example/", link_id("https://b"): "https://b"})
    kept = Link.objects.get(pk=link_id(url))
    assert (kept.url, Link.objects.values("used_on").distinct().count()) == (url, 1)


def test_link_id_is_a_uuid_of_the_address_alone() -> None:
    assert link_id("https://a") == link_id("https://a") != link_id("https://A")
    assert link_id("https://a").version == 8


def test_purge_deletes_what_no_mail_has_named_for_long_and_nobody_followed() -> None:
    urls = {name: f"https://shop.example/{name}" for name in ("old", "followed", "new")}
    store_links({link_id(url): url for url in urls.values()})
    followed = Link.objects.get(url=urls["followed"])
    Visit.objects.create(
        message=mail_to(state="sent"), link=followed, fingerprint=b"1", client=b"1", due_at=Now()
    )
    old = Link.objects.filter(url__in=[urls["old"], urls["followed"]])
    old.update(used_on=Now() - KEPT - timedelta(days=1))
    assert purge_links() == 1
    assert set(Link.objects.values_list("url", flat=True)) == {urls["followed"], urls["new"]}


def test_ids_of_distinct_addresses_differ() -> None:
    ids: set[UUID] = {link_id(f"https://shop.example/{number}") for number in range(10_000)}
    assert len(ids) == 10_000

"""A message's page shows who opened and clicked, and how that is known."""

from datetime import timedelta

from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from delivery.link_store import store_links
from delivery.models import Message, Visit
from delivery.tracking import link_id
from tests.factories import MessageFactory

URL = "https://shop.example/?x=<script>"


def visited(message: Message, count: int, *, actor: str, reason: str = "") -> None:
    store_links({link_id(URL): URL})
    for number in range(count):
        Visit.objects.create(
            message=message,
            link_id=link_id(URL) if number % 2 == 0 else None,
            fingerprint=f"{actor}{number}".encode(),
            client=b"c",
            due_at=Now() - timedelta(minutes=1),
            actor=actor,
            reason=reason,
        )


def page(client: Client, message: Message) -> tuple[str, int]:
    with CaptureQueriesContext(connection) as queries:
        text = client.get(reverse("admin:delivery_message_change", args=[message.pk])).text
    return text, len(queries)


def test_page_names_link_actor_and_reason(operator: Client) -> None:
    message = MessageFactory(state="sent", opened_at=Now(), clicked_at=Now())
    visited(message, 2, actor="machine", reason="3 links within 2 s")
    visited(message, 1, actor="")
    text, _ = page(operator, message)
    assert "https://shop.example/?x=&lt;script&gt;" in text
    assert "3 links within 2 s" in text
    assert "Machine" in text
    assert "Not known yet" in text


def test_page_of_a_message_nobody_visited_has_no_list(operator: Client) -> None:
    assert "Opens and clicks" not in page(operator, MessageFactory(state="sent"))[0]


def test_number_of_queries_does_not_depend_on_the_visits(operator: Client) -> None:
    counts = []
    for size in (1, 30):
        message = MessageFactory(state="sent", opened_at=Now(), clicked_at=Now())
        visited(message, size, actor="person")
        page(operator, message)
        counts.append(page(operator, message)[1])
    assert counts[0] == counts[1]

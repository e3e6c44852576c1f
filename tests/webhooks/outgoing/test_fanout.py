"""Queueing news for endpoints: who hears what, once, and of whom nothing is told (C20)."""

import json

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.factories import TopicFactory
from tests.webhooks.outgoing.rows import make_endpoint, make_news
from webhooks.models import OutgoingDelivery
from webhooks.news import News
from webhooks.outgoing.fanout import queue_deliveries

pytestmark = pytest.mark.django_db


def queries_of(news: list[News]) -> int:
    with CaptureQueriesContext(connection) as queries:
        queue_deliveries(news)
    return len(queries)


def test_body_is_that_of_standard_webhooks_without_an_address() -> None:
    endpoint = make_endpoint()
    news = make_news(
        data={"class": "mailbox_full"},
        topic=TopicFactory(key="deals"),
        stream="marketing",
        origin_campaign="welcome",
        origin_step="mail",
        origin_event_id="e-1",
    )
    assert queue_deliveries([news]) == 1
    delivery = OutgoingDelivery.objects.get()
    assert (delivery.endpoint, delivery.event_id, delivery.type, delivery.state) == (
        endpoint,
        news.id,
        "email.bounced",
        "pending",
    )
    assert delivery.contact_id == news.message.contact_id
    assert json.loads(delivery.body) == {
        "type": "email.bounced",
        "timestamp": "2026-11-25T10:00:00Z",
        "data": {
            "class": "mailbox_full",
            "message_id": str(news.message.pk),
            "user_id": news.message.contact.user_id,
            "campaign": "welcome",
            "step": "mail",
            "topic": "deals",
            "stream": "marketing",
            "event_id": "e-1",
        },
    }
    assert news.message.email not in delivery.body


def test_address_is_told_only_to_the_endpoint_that_asks_for_it() -> None:
    asking, other = make_endpoint(with_address=True), make_endpoint()
    news = make_news()
    queue_deliveries([news])
    told = {d.endpoint_id: json.loads(d.body)["data"] for d in OutgoingDelivery.objects.all()}
    assert told[asking.pk]["email"] == news.message.email
    assert "email" not in told[other.pk]


def test_endpoints_hear_the_types_they_chose() -> None:
    bounces = make_endpoint(types=["email.bounced", "email.complained"])
    everything = make_endpoint(types=["email.*"])
    make_endpoint(types=["email.bounced"], is_active=False)
    queue_deliveries([make_news(type="email.bounced"), make_news(type="email.opened")])
    heard = sorted(OutgoingDelivery.objects.values_list("endpoint_id", "type"))
    assert heard == sorted(
        [
            (bounces.pk, "email.bounced"),
            (everything.pk, "email.bounced"),
            (everything.pk, "email.opened"),
        ]
    )


def test_news_told_again_are_queued_once() -> None:
    make_endpoint()
    make_endpoint()
    news = [make_news(), make_news()]
    assert queue_deliveries(news) == 4
    assert queue_deliveries([*news, *news]) == 0
    assert queue_deliveries([news[0], make_news()]) == 2
    assert OutgoingDelivery.objects.count() == 6


def test_nothing_leaves_about_people_who_said_so() -> None:
    make_endpoint()
    assert queue_deliveries([make_news(do_not_share=True)]) == 0
    assert queue_deliveries([make_news(do_not_share=True), make_news(do_not_share=False)]) == 1


def test_id_that_cannot_stand_in_a_header_is_replaced_by_a_digest() -> None:
    make_endpoint()
    for ident in ("a\r\nX-Injected: 1", "a.b", "x" * 101, "ünï", "", "good:1"):
        queue_deliveries([make_news(id=ident)])
        queue_deliveries([make_news(id=ident)])
    ids = list(OutgoingDelivery.objects.order_by("id").values_list("event_id", flat=True))
    assert len(ids) == len(set(ids)) == 6
    assert all(i.startswith("news_") and len(i) == 45 for i in ids[:5])
    assert ids[5] == "good:1"


def test_statements_are_two_whatever_the_number_one_without_endpoints_none_without_news() -> None:
    assert queries_of([]) == 0
    assert queries_of([make_news(do_not_share=True)]) == 0
    one, many = [make_news()], [make_news() for _ in range(50)]
    assert queries_of(one) == 1
    make_endpoint(types=["email.clicked"])
    assert queries_of(one) == 1
    make_endpoint()
    make_endpoint(with_address=True)
    assert queries_of(one) == queries_of(many) == 2
    assert OutgoingDelivery.objects.count() == 2 * 51

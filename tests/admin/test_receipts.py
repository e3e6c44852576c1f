"""The admin of receipts: large bodies, odd ones, and a table of millions."""

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tests.delivery.plans import copy_rows, scanned
from webhooks.models import Receipt

pytestmark = [pytest.mark.django_db, pytest.mark.unaudited]

LIST = "admin:webhooks_receipt_changelist"


def receipt(**fields: object) -> Receipt:
    return Receipt.objects.create(
        **{
            "provider": "postmark",
            "provider_event_id": "Delivery:1",
            "body": b'{"RecordType": "Delivery"}',
            "state": "applied",
            **fields,
        }
    )


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (rb'{"Details": "bad \ud800 text"}', r"bad \ud800 text"),
        (rb'{"Details": "\ud83d\ude00"}', "\U0001f600"),
        (b"\xff\xfe\x00 no text", "no text"),
        (b"[" * 100_000, "[[[[["),
    ],
)
def test_page_shows_whatever_came(admin_client: Client, body: bytes, shown: str) -> None:
    page = admin_client.get(reverse("admin:webhooks_receipt_change", args=[receipt(body=body).pk]))
    assert page.status_code == 200
    assert shown in page.content.decode()


def test_list_loads_no_bodies(admin_client: Client) -> None:
    receipt(body=b"x" * 250_000, error="Traceback" * 100, state="dead")
    with CaptureQueriesContext(connection) as captured:
        page = admin_client.get(reverse(LIST))
    assert page.status_code == 200
    for query in captured:
        assert '"webhooks_receipt"."body"' not in query["sql"]
        assert '"webhooks_receipt"."error"' not in query["sql"]


@pytest.mark.parametrize("query", ["", "?state__exact=dead", "?q=Delivery:1", "?provider=ses"])
def test_list_reads_what_it_shows_whatever_there_is(admin_client: Client, query: str) -> None:
    receipt()
    receipt(provider_event_id="dead", state="dead")
    copy_rows("webhooks_receipt", 4_000, provider_event_id="provider_event_id || g")
    Receipt.objects.filter(pk__gt=Receipt.objects.order_by("pk")[5].pk).update(state="applied")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE webhooks_receipt")
    with CaptureQueriesContext(connection) as captured:
        assert admin_client.get(reverse(LIST) + query).status_code == 200
    statements = [q["sql"] for q in captured if "webhooks_receipt" in q["sql"]]
    assert statements
    for statement in statements:
        if query or "COUNT" not in statement:  # counting stops at ten thousand
            assert scanned(statement) == set(), statement


@pytest.mark.parametrize(
    ("term", "found"),
    [("Delivery:1", 1), (" Delivery:1 ", 1), ("delivery:1", 0), ("Delivery", 0), ("\x00", 0)],
)
def test_search_is_by_the_whole_id(admin_client: Client, term: str, found: int) -> None:
    receipt()
    page = admin_client.get(reverse(LIST), {"q": term})
    assert page.status_code == 200
    if term != "\x00":
        assert page.context["cl"].result_count == found

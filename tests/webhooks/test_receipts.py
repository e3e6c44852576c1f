"""Keeping receipts: once each, whoever tells them together with whom."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from events.steps import run
from webhooks.models import Receipt
from webhooks.receipts import Kept, NewReceipt, keep

pytestmark = pytest.mark.django_db


def keep_now(*receipts: NewReceipt) -> list[Kept]:
    with connection.cursor() as cursor:
        return run(keep(receipts), cursor)


def test_receipt_is_kept_as_it_came() -> None:
    body = bytes(range(256))
    assert keep_now(NewReceipt("postmark", "a", body, "text/plain")) == [Kept.KEPT]
    receipt = Receipt.objects.get()
    assert (bytes(receipt.body), receipt.content_type, receipt.state) == (
        body,
        "text/plain",
        "pending",
    )
    assert (receipt.attempts, receipt.outcome, receipt.lease_owner) == (0, [], "")
    assert receipt.received_at is not None


def test_first_body_counts_where_an_id_may_come_again() -> None:
    keep_now(NewReceipt("postmark", "a", b"1"))
    told = [NewReceipt("postmark", "a", b"2"), NewReceipt("postmark", "b", b"3")]
    assert keep_now(*told, *told) == [Kept.KEPT] * 4
    bodies = Receipt.objects.order_by("provider_event_id").values_list("body", flat=True)
    assert [bytes(body) for body in bodies] == [b"1", b"3"]


def test_id_that_is_good_for_one_body_is_told_with_that_again() -> None:
    assert keep_now(NewReceipt("mailgun", "a", b"1")) == [Kept.KEPT]
    again, other = NewReceipt("mailgun", "a", b"1"), NewReceipt("mailgun", "a", b"2")
    assert keep_now(again, other, again) == [Kept.KEPT, Kept.REUSED, Kept.KEPT]


def test_id_that_is_good_for_one_body_is_not_split_between_two_calls_of_one_group() -> None:
    group = [NewReceipt("mailgun", "a", b"1"), NewReceipt("mailgun", "a", b"2")]
    assert keep_now(*group, NewReceipt("postmark", "a", b"2")) == [
        Kept.KEPT,
        Kept.REUSED,
        Kept.KEPT,
    ]
    assert bytes(Receipt.objects.get(provider="mailgun").body) == b"1"


def test_nothing_told_asks_nothing() -> None:
    with CaptureQueriesContext(connection) as queries:
        assert keep_now() == []
    assert len(queries) == 0


def queries_for(number: int, provider: str) -> int:
    told = [NewReceipt(provider, f"{number}-{n}", b"{}") for n in range(number)]
    keep_now(*told)
    with CaptureQueriesContext(connection) as queries:
        keep_now(*told)
    return len(queries)


@pytest.mark.parametrize(("provider", "most"), [("postmark", 1), ("mailgun", 2)])
def test_number_of_queries_does_not_depend_on_the_number_of_receipts(
    provider: str, most: int
) -> None:
    assert queries_for(1, provider) == queries_for(50, provider) == most

"""Suppressing addresses, and the moment from which it holds."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from common.addresses import address_hash, parse_address
from common.clock import now
from common.valkey import redis_client
from delivery.engine import deliver_batch
from delivery.models import Message, SandboxMail
from suppression.mirror import sync_mirror
from suppression.models import Suppression
from suppression.services import (
    SuppressionRequest,
    lift_unsubscribes,
    lock_addresses,
    suppress_addresses,
    suppressed_scopes,
    suppressions_of,
)
from suppression.states import ALL, MARKETING, SuppressionReason
from tests.factories import MessageFactory, TemplateFactory

pytestmark = pytest.mark.django_db

REASON = SuppressionReason


def request(
    email: str, scope: str = ALL, reason: SuppressionReason = REASON.MANUAL
) -> SuppressionRequest:
    return SuppressionRequest(parse_address(email), scope, reason, "test")


def test_suppressing_twice_is_one_row() -> None:
    assert suppress_addresses([request("a@example.com"), request("A@EXAMPLE.com")]) == 1
    assert suppress_addresses([request("a@example.com")]) == 0
    digest = address_hash("a@example.com")
    assert suppressed_scopes([digest]) == {digest: frozenset({ALL})}


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (REASON.MANUAL, REASON.COMPLAINT, REASON.COMPLAINT),
        (REASON.COMPLAINT, REASON.HARD_BOUNCE, REASON.COMPLAINT),
    ],
)
def test_stronger_reason_stays(first: Any, second: Any, kept: Any) -> None:
    suppress_addresses([request("a@example.com", reason=first)])
    suppress_addresses([request("a@example.com", reason=second)])
    assert Suppression.objects.get().reason == kept


@pytest.mark.parametrize(
    "order", [(REASON.MANUAL, REASON.UNSUBSCRIBE), (REASON.UNSUBSCRIBE, REASON.MANUAL)]
)
def test_lifting_an_unsubscribe_leaves_what_was_there_besides(order: Any) -> None:
    for reason in order:
        suppress_addresses([request("a@example.com", MARKETING, reason)])
    digest = address_hash("a@example.com")
    assert set(suppressions_of([digest])) == {(MARKETING, reason.value) for reason in order}
    assert lift_unsubscribes([digest], [MARKETING]) == 1
    row = Suppression.objects.get()
    assert (row.reason, row.source, row.beneath) == ("manual", "test", [])
    assert lift_unsubscribes([digest], [MARKETING]) == 0
    assert Suppression.objects.exists()


def test_lifting_the_only_reason_leaves_nothing() -> None:
    suppress_addresses([request("a@example.com", MARKETING, REASON.UNSUBSCRIBE)])
    assert lift_unsubscribes([address_hash("a@example.com")], [MARKETING]) == 1
    assert not Suppression.objects.exists()


def test_unsubscribe_beneath_a_complaint_is_lifted_and_the_complaint_stays() -> None:
    for reason in (REASON.UNSUBSCRIBE, REASON.COMPLAINT, REASON.MANUAL):
        suppress_addresses([request("a@example.com", MARKETING, reason)])
    digest = address_hash("a@example.com")
    assert lift_unsubscribes([digest], [MARKETING]) == 1
    assert set(suppressions_of([digest])) == {(MARKETING, "complaint"), (MARKETING, "manual")}


def test_what_has_run_out_suppresses_nothing() -> None:
    past = now() - timedelta(days=1)
    limit = SuppressionRequest(
        parse_address("a@example.com"), ALL, REASON.SOFT_LIMIT, "test", expires_at=past
    )
    suppress_addresses([limit])
    assert suppressions_of([address_hash("a@example.com")]) == []


def test_of_the_erased_only_the_hash_is_written() -> None:
    first = SuppressionRequest(
        parse_address("a@example.com"), MARKETING, REASON.MANUAL, "desk", "asked by a@example.com"
    )
    suppress_addresses([first, request("a@example.com", ALL, REASON.ERASURE)])
    late = SuppressionRequest(
        parse_address("a@example.com"), "topic:x", REASON.COMPLAINT, "ses", "a@example.com"
    )
    other = request("b@example.com", ALL, REASON.COMPLAINT)
    suppress_addresses([late, other])
    suppress_addresses([replace(late, scope=MARKETING)])
    rows = Suppression.objects.exclude(address_hash=address_hash("b@example.com"))
    assert set(rows.values_list("scope", "reason", "email", "evidence")) == {
        (ALL, "erasure", "", ""),
        (MARKETING, "complaint", "", ""),
        ("topic:x", "complaint", "", ""),
    }
    assert rows.get(scope=MARKETING).beneath == [
        {"reason": "manual", "source": "desk", "evidence": ""}
    ]
    assert Suppression.objects.get(scope=ALL, reason="complaint").email == "b@example.com"


@pytest.mark.parametrize("count", [1, 50])
def test_query_count_does_not_depend_on_how_many(count: int) -> None:
    requests = [request(f"{n}@example.com", reason=REASON.MANUAL) for n in range(count)]
    suppress_addresses(requests)
    hashes = [address_hash(r.address.normalized) for r in requests]
    with CaptureQueriesContext(connection) as queries:
        suppress_addresses([replace(r, reason=REASON.UNSUBSCRIBE) for r in requests])
        lift_unsubscribes(hashes, [ALL])
    assert len(queries) <= 12
    assert Suppression.objects.filter(reason="manual").count() == count


@pytest.mark.django_db(transaction=True)
def test_mirror_is_written_through_and_filled_again_after_a_flush() -> None:
    key = "suppression:" + address_hash("a@example.com").hex()
    suppress_addresses([request("a@example.com", MARKETING)])
    assert redis_client().exists(key)
    redis_client().flushdb()
    redis_client().set("suppression:stale", 1)
    assert sync_mirror() == 1
    assert redis_client().exists(key)
    assert not redis_client().exists("suppression:stale")


@pytest.mark.django_db(transaction=True)
def test_dispatch_waits_for_a_suppression_that_is_being_written() -> None:
    message = MessageFactory()
    digest = address_hash(message.email_normalized)
    delivering = threading.Thread(target=_deliver_in_thread)
    with transaction.atomic():
        lock_addresses([digest], shared=False)
        delivering.start()
        delivering.join(0.5)
        assert delivering.is_alive(), "the dispatcher did not wait for the writer"
        suppress_addresses([request(message.email)])
    delivering.join(10)
    message.refresh_from_db()
    assert (message.state, message.reason) == ("skipped", "suppressed")
    assert SandboxMail.objects.count() == 0


def _deliver_in_thread() -> None:
    try:
        deliver_batch("transactional", limit=10)
    finally:
        connection.close()


@pytest.mark.django_db(transaction=True)
def test_nothing_is_dispatched_after_a_suppression_was_committed() -> None:
    """Two writers race two dispatchers. Whatever was not yet dispatched when its suppression was
    committed must never leave."""
    template = TemplateFactory()
    messages = MessageFactory.create_batch(120, template_version=template.published)
    still_here: list[object] = []

    def suppressor(part: int) -> None:
        try:
            for message in messages[part::4]:
                suppress_addresses([request(message.email)])
                if Message.objects.get(pk=message.pk).state in ("queued", "claimed"):
                    still_here.append(message.pk)
        finally:
            connection.close()

    def dispatcher(_part: int) -> None:
        try:
            while deliver_batch("transactional", limit=5):
                pass
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(suppressor, part) for part in (0, 1)]
        tasks += [pool.submit(dispatcher, part) for part in (0, 1)]
        for task in tasks:
            task.result()
    left = set(SandboxMail.objects.values_list("message_id", flat=True))
    assert left.isdisjoint(still_here)
    assert len(left) + Message.objects.filter(reason="suppressed").count() == 120

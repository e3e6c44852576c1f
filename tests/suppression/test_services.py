"""Suppressing addresses, and the moment from which it holds."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, transaction

from common.addresses import address_hash, parse_address
from common.valkey import redis_client
from delivery.engine import deliver_batch
from delivery.models import Message, SandboxMail
from suppression.mirror import sync_mirror
from suppression.models import Suppression
from suppression.services import (
    SuppressionRequest,
    lock_addresses,
    suppress_addresses,
    suppressed_scopes,
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

"""The demo's shoppers: events a shop could post, and visits that make sense."""

from collections import defaultdict
from typing import Any

from common.clock import now
from emailauto.demo import CART_UPDATED, ORDER_COMPLETED, SIGNED_UP
from emailauto.shoppers import stream
from events.native import parse_event
from events.wire import EventIn


def test_every_event_is_one_the_api_takes() -> None:
    documents = list(stream(300, seed=1))
    assert all(
        isinstance(parse_event(document, source="api", received_at=now()), EventIn)
        for document in documents
    )
    assert len({document["event_id"] for document in documents}) == 300
    assert {document["event_type"] for document in documents} == {
        SIGNED_UP,
        CART_UPDATED,
        ORDER_COMPLETED,
    }


def test_seed_repeats_people_and_amounts_but_never_event_ids() -> None:
    def told(document: dict[str, Any]) -> tuple[Any, ...]:
        payload = document["payload"]
        return document["event_type"], document["user_id"], payload["email"], payload.get("order")

    first, again, other = (list(stream(100, seed=seed)) for seed in (1, 1, 2))
    assert [told(document) for document in first] == [told(document) for document in again]
    assert [told(document) for document in first] != [told(document) for document in other]
    assert not {d["event_id"] for d in first} & {d["event_id"] for d in again}


def test_order_is_the_end_of_a_cart_that_was_filled() -> None:
    carts = defaultdict(list)
    for document in stream(500, seed=1):
        if "cart_id" in document["payload"]:
            carts[document["payload"]["cart_id"]].append(document)
    ordered = [cart for cart in carts.values() if cart[-1]["event_type"] == ORDER_COMPLETED]
    assert 0 < len(ordered) < len(carts)
    for cart in carts.values():
        assert {document["event_type"] for document in cart[:-1]} <= {CART_UPDATED}
        assert len({document["user_id"] for document in cart}) == 1
    assert all(len(cart) > 1 and cart[-1]["payload"]["order"]["total"] > 0 for cart in ordered)

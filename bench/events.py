"""The events that are posted: an order of a shop, about 500 bytes of JSON.

Ids look like the article's `uuid4`: random, so that they fall anywhere into the unique index.
They follow from a prefix and a number, so that a mail can be told to its event.
"""

import hashlib
import time
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec


def event_id(prefix: str, number: int) -> str:
    """The id of event `number` of a run."""
    digest = hashlib.blake2b(f"{prefix}-{number}".encode(), digest_size=16).digest()
    return str(uuid.UUID(bytes=digest))


def address(prefix: str, number: int) -> str:
    """The address of the person whom event `number` is about: each has one of their own."""
    return f"{prefix}-{number}@example.com"


def document(prefix: str, number: int) -> dict[str, Any]:
    """The event as it is posted."""
    return {
        "event_id": event_id(prefix, number),
        "event_type": "OrderCompleted",
        "user_id": f"{prefix}-{number}",
        "timestamp": time.time_ns() // 1_000_000,
        "payload": {
            "email": address(prefix, number),
            "name": "Ada Abel",
            "cart_id": f"cart-{number}",
            "order": {
                "id": f"{number:08d}",
                "total": 59.9,
                "currency": "EUR",
                "items": [
                    {"name": "Storm lantern", "quantity": 1, "price": "39.90"},
                    {"name": "Wick, 3 m", "quantity": 2, "price": "10.00"},
                ],
            },
        },
        "metadata": {"source": "checkout-service", "region": "us-east-1"},
    }


def bodies(prefix: str, *, events: int, batch: int) -> Iterator[bytes]:
    """Request bodies that hold `events` events: lists of `batch` of them, or, with a batch of 1,
    bare objects."""
    for start in range(0, events, batch):
        documents = [document(prefix, n) for n in range(start, min(start + batch, events))]
        yield msgspec.json.encode(documents[0] if batch == 1 else documents)

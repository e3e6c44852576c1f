"""A realistic stream of shop events for the demo: people sign up, fill carts, some order."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from common.clock import now, to_milliseconds
from common.ids import uuid7
from emailauto.demo import CART_UPDATED, ORDER_COMPLETED, SIGNED_UP

_FIRST = [
    "Ada",
    "Alan",
    "Barbara",
    "Claude",
    "Dorothy",
    "Edsger",
    "Frances",
    "Grace",
    "Hedy",
    "Ivan",
    "Joan",
    "Katherine",
]
_LAST = [
    "Abel",
    "Brook",
    "Clarke",
    "Dunn",
    "Ellis",
    "Frost",
    "Gray",
    "Hale",
    "Irwin",
    "Jones",
    "Keller",
    "Lamb",
]
_ORDER_RATE = 0.55
_SIGN_UP_RATE = 0.4
_OPEN_VISITS = 12


@dataclass(slots=True)
class _Visit:
    """One shopper's way through the shop: the events still to come, in order."""

    shopper: dict[str, str]
    steps: list[str] = field(default_factory=list)
    cart_id: str = ""
    total: float = 0.0


def stream(count: int, *, seed: int | None = None) -> Iterator[dict[str, Any]]:
    """`count` events as they would be posted, several shoppers' visits interleaved.

    With a seed the people, carts and amounts are the same on every run; the event ids never are,
    so each run is a new day in the shop.
    """
    dice = random.Random(seed)  # noqa: S311 - a demo's dice
    visits: list[_Visit] = []
    for _ in range(count):
        if len(visits) < _OPEN_VISITS:
            visits.append(_new_visit(dice))
        visit = dice.choice(visits)
        yield _event(visit, visit.steps.pop(0), dice)
        if not visit.steps:
            visits.remove(visit)


def _new_visit(dice: random.Random) -> _Visit:
    first, last, number = dice.choice(_FIRST), dice.choice(_LAST), dice.randrange(10_000)
    shopper = {
        "user_id": f"shopper-{number}-{first}-{last}".lower(),
        "name": f"{first} {last}",
        "email": f"{first}.{last}.{number}@example.com".lower(),
    }
    steps = [SIGNED_UP] if dice.random() < _SIGN_UP_RATE else []
    steps += [CART_UPDATED] * dice.choice((1, 1, 2, 3))
    if dice.random() < _ORDER_RATE:
        steps.append(ORDER_COMPLETED)
    return _Visit(shopper, steps, cart_id=f"cart-{uuid7().hex[-10:]}")


def _event(visit: _Visit, event_type: str, dice: random.Random) -> dict[str, Any]:
    payload: dict[str, Any] = {"email": visit.shopper["email"], "name": visit.shopper["name"]}
    if event_type != SIGNED_UP:
        payload["cart_id"] = visit.cart_id
        visit.total = round(visit.total + dice.uniform(5, 80), 2)
    if event_type == ORDER_COMPLETED:
        payload["order"] = {"id": f"{dice.randrange(10**6):06d}", "total": visit.total}
    return {
        "event_id": str(uuid7()),
        "event_type": event_type,
        "user_id": visit.shopper["user_id"],
        "timestamp": to_milliseconds(now()),
        "payload": payload,
        "metadata": {"source": "demo-shop", "region": "eu-west-1"},
    }

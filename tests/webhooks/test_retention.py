"""How long receipts are kept."""

from datetime import timedelta

import pytest

from common.clock import now
from webhooks.models import Receipt
from webhooks.retention import KEPT_DAYS, purge_receipts

pytestmark = pytest.mark.django_db


def receipt(name: str, *, state: str = "applied", age: float) -> None:
    received_at = now() - timedelta(days=age)
    Receipt.objects.create(
        provider="postmark",
        provider_event_id=name,
        body=b"{}",
        state=state,
        received_at=received_at,
        error="Traceback" if state == "dead" else "",
    )


def left() -> set[str]:
    return set(Receipt.objects.values_list("provider_event_id", flat=True))


@pytest.mark.parametrize("chunk", [1, 2, 5_000])
def test_only_what_was_applied_long_ago_goes(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("common.retention._CHUNK", chunk)
    receipt("dead", state="dead", age=KEPT_DAYS + 1)
    receipt("old", age=KEPT_DAYS + 1)
    receipt("older", age=KEPT_DAYS + 100)
    receipt("waits", state="pending", age=KEPT_DAYS + 1)
    receipt("young", age=KEPT_DAYS - 1)
    assert purge_receipts() == 2
    assert left() == {"dead", "waits", "young"}
    assert purge_receipts() == 0


def test_nothing_to_purge_is_fine() -> None:
    assert purge_receipts() == 0

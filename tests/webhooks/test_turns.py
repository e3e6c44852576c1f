"""Turns over real connections: one worker's at a time, and nobody's for ever."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from webhooks.models import Turn
from webhooks.turns import turn

pytestmark = pytest.mark.django_db(transaction=True)


def elsewhere(work: Callable[[], Any]) -> Any:
    """What comes of it in another thread, on a connection of its own."""

    def run() -> Any:
        try:
            return work()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def may_take() -> bool:
    with turn("a lane", seconds=60) as lease:
        return lease is not None


def let_pass(seconds: float) -> None:
    Turn.objects.update(lease_until=F("lease_until") - timedelta(seconds=seconds))


def test_a_turn_is_one_workers_until_they_leave_it() -> None:
    with turn("a lane", seconds=60) as lease:
        assert lease is not None
        assert elsewhere(may_take) is False
        with turn("another", seconds=60) as other:
            assert other is not None
    assert elsewhere(may_take) is True
    assert set(Turn.objects.values_list("lease_owner", "lease_until")) == {("", None)}


def test_a_turn_ends_with_its_block_also_when_that_fails() -> None:
    with pytest.raises(ZeroDivisionError), turn("a lane", seconds=60):
        raise ZeroDivisionError
    assert may_take() is True


def test_whoever_dies_is_waited_for_until_the_lease_ends() -> None:
    Turn.objects.create(
        name="a lane", lease_owner="dead", lease_until=Now() + timedelta(seconds=60)
    )
    assert may_take() is False
    let_pass(61)
    assert may_take() is True


def test_a_turn_is_made_longer_once_a_third_is_over() -> None:
    with turn("a lane", seconds=60) as lease:
        assert lease is not None
        let_pass(61)
        with CaptureQueriesContext(connection) as queries:
            assert lease.keep() is True
        assert len(queries) == 0
        lease.renewed_at -= 21
        assert lease.keep() is True  # its time was over, and nobody had taken it
        assert elsewhere(may_take) is False


def test_a_turn_that_went_to_another_is_neither_kept_nor_left() -> None:
    with turn("a lane", seconds=60) as lease:
        assert lease is not None
        Turn.objects.update(lease_owner="another")
        lease.renewed_at -= 21
        assert lease.keep() is False
        assert lease.keep() is False
    assert Turn.objects.get().lease_owner == "another"
    assert may_take() is False

"""The rate limit of an API key: over all processes, and with Redis away."""

import json
from typing import Any

import pytest
from django.test import Client

from common.api import ApiError
from common.buckets import lease
from common.valkey import redis_client
from events import limits
from events.directory import Producer
from events.limits import charge
from events.models import Event
from tests.factories import event_document, make_api_key
from tests.outage import redis_away


@pytest.fixture(autouse=True)
def _no_allowances() -> None:
    limits._allowances.clear()
    limits._windows.clear()
    limits._silent_until = 0.0


def producer(rate: int, key: str = "k") -> Producer:
    return Producer(key, "api", frozenset(), rate)


def charged(count: int, rate: int) -> int:
    """How many single events go through before one is refused."""
    for number in range(count):
        try:
            charge(producer(rate), 1)
        except ApiError:
            return number
    return count


def refusal(rate: int) -> ApiError:
    """What the first says that is refused. A bucket fills while this process waits for its turn, so
    that one or the other may come late enough."""
    for _ in range(100):
        try:
            charge(producer(rate), 1)
        except ApiError as error:
            return error
    raise AssertionError("a hundred more go through")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The buckets that Redis was asked for, by this process."""
    names: list[str] = []

    def counted(name: str, **numbers: int) -> tuple[int, float]:
        names.append(name)
        return lease(name, **numbers)

    monkeypatch.setattr(limits, "lease", counted)
    return names


def test_a_whole_batch_fits_whatever_the_limit() -> None:
    charge(producer(5), 1_000)
    refused = refusal(5)
    assert (refused.status_code, refused.code) == (429, "rate_limited")
    assert refused.wait is not None
    assert 0 < refused.wait <= 1


def test_a_batch_s_worth_at_once_is_what_a_small_limit_allows() -> None:
    assert 1_000 <= charged(3_000, rate=10) <= 1_200


def test_another_process_draws_on_the_same_bucket() -> None:
    charge(producer(5), 1_000)
    limits._allowances.clear()  # what the other process has of its own
    assert refusal(5).code == "rate_limited"


def test_keys_do_not_share_a_limit() -> None:
    charge(producer(10, "a"), 1_000)
    charge(producer(10, "b"), 1_000)


def test_zero_is_no_limit() -> None:
    for _ in range(10):
        charge(producer(0), 1_000)
    assert not redis_client().keys("intake:*")


def test_redis_is_not_asked_for_each_request(asked: list[str]) -> None:
    charged(500, rate=1_000)
    assert 0 < len(asked) < 20


def test_without_redis_the_limit_holds_per_process() -> None:
    with redis_away():
        assert charged(9_000, rate=10) in range(1_000, 9_000)


def test_redis_that_is_back_is_asked_again() -> None:
    with redis_away():
        charge(producer(1_000), 1)
    # Silent for a second from the failure, not from the last who noticed the silence.
    until = limits._silent_until
    charge(producer(1_000), 1_000)
    assert limits._silent_until == until


def test_redis_that_hangs_is_asked_once_and_then_left_alone(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_SULK_SECONDS", 600.0)
    with redis_away(hangs=True):
        charged(200, rate=1_000)
    assert len(asked) == 1


@pytest.mark.django_db
def test_client_over_its_limit_hears_when_to_come_back_and_loses_nothing() -> None:
    _, token = make_api_key(rate_limit=1)
    headers = {"Authorization": f"Bearer {token}"}

    def post(body: Any) -> Any:
        return Client().post(
            "/api/v1/events", json.dumps(body), "application/json", headers=headers
        )

    assert post([event_document(f"e{n}") for n in range(1_000)]).status_code == 202
    # A second after the last one the bucket has another, however busy this machine is.
    kept = 1_000
    while (response := post(event_document(f"late-{kept}"))).status_code == 202:
        kept += 1
        assert kept < 1_100
    assert (response.status_code, response.json()["code"]) == (429, "rate_limited")
    assert int(response.headers["Retry-After"]) >= 1
    assert Event.objects.count() == kept

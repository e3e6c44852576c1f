"""The token bucket. At one token per second, 1,000 tokens are a debt no slow machine pays off."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from common.bell import redis_client
from delivery.pace import take
from tests.outage import redis_away


def about(seconds: float) -> object:
    return pytest.approx(seconds, abs=100)


def test_first_second_is_free_and_what_follows_is_debt() -> None:
    assert take("p", 50, 50) == 0
    assert take("p", 50, 50_000) == about(1_000)
    assert take("p", 50, 50_000) == about(2_000)


def test_bucket_holds_one_second_and_no_more() -> None:
    assert take("p", 1, 1_000) == about(1_000)


def test_takers_share_one_bucket() -> None:
    with ThreadPoolExecutor(4) as pool:
        waits = sorted(pool.map(lambda _: take("p", 1, 1_000), range(4)))
    assert waits == [about(1_000), about(2_000), about(3_000), about(4_000)]


def test_other_bucket_is_not_in_debt() -> None:
    take("p", 1, 1_000)
    assert take("q", 1, 1) == 0


def test_tokens_given_back_are_there_for_the_next() -> None:
    take("p", 1, 1_000)
    take("p", 1, 1_000)
    take("p", 1, -1_000)
    assert take("p", 1, 1_000) == about(2_000)


def test_giving_back_more_than_was_taken_saves_up_nothing() -> None:
    take("p", 1, -1_000)
    assert take("p", 1, 1_000) == about(1_000)


def test_bucket_lost_by_redis_is_full_again_and_no_fuller() -> None:
    take("p", 1, 1_000)
    redis_client().flushdb()
    assert take("p", 1, 1) == 0
    assert take("p", 1, 1_000) == about(1_000)


def test_bucket_nobody_uses_goes_away() -> None:
    take("p", 100, 1)
    assert 0 < redis_client().ttl("pace:p") <= 61


@pytest.mark.parametrize("hangs", [False, True])
def test_without_redis_a_provider_is_fed_slower_and_never_at_once(hangs: bool) -> None:
    with redis_away(hangs=hangs):
        for rate, count in ((1, 1), (100, 1), (100, 100), (10_000, 1)):
            assert take("p", rate, count) > count / rate
    assert take("p", 1, 1) == 0

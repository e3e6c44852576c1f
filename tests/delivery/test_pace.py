"""The token buckets. At one token per second, 1,000 tokens are a debt no slow machine pays off."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import time_machine
from django.db import connection
from django.db.models.functions import Now

from common.buckets import Bucket, LocalBuckets, draw
from common.valkey import redis_client
from delivery import pace, recovery
from delivery.engine import deliver_batch, drain
from delivery.mailboxes import _DOMAINS, mailbox_provider
from delivery.models import Message
from tests.delivery.fakeesp import fake_esp
from tests.factories import ContactFactory, MessageFactory, ProviderFactory, SenderFactory
from tests.outage import redis_away

LONG = 1e6


def about(seconds: float) -> object:
    return pytest.approx(seconds, abs=100)


def bucket(name: str = "b", *, rate: float = 1, burst: float = 1) -> Bucket:
    return Bucket(name, rate, burst)


def many(count: int, *buckets: Bucket, within: float = LONG) -> list[float]:
    return draw([buckets] * count, within=within)


def test_burst_is_free_and_what_follows_is_debt() -> None:
    b = bucket(rate=50, burst=50)
    assert many(50, b) == [0] * 50
    assert many(50_000, b)[-1] == about(1_000)
    assert many(50_000, b)[-1] == about(2_000)


def test_each_draw_has_its_own_moment() -> None:
    waits = many(4, bucket(rate=0.01))
    assert waits[0] == 0
    assert waits[1:] == [about(100), about(200), about(300)]


def test_draw_waits_for_the_slowest_of_its_buckets() -> None:
    slow, fast = bucket("slow", rate=0.001), bucket("fast", rate=100, burst=100)
    assert draw([[fast, slow], [fast, slow], [fast]], within=LONG) == [0, about(1_000), 0]


def test_draws_that_would_wait_too_long_take_nothing_and_learn_their_turn() -> None:
    b = bucket(rate=0.01)
    assert many(4, b, within=150) == [0, about(100), about(200), about(300)]
    # Two were taken, so the next is where the third would have been.
    assert many(1, b) == [about(200)]


def test_neighbours_with_another_bucket_are_not_held_up() -> None:
    slow, fast = bucket("slow", rate=0.001), bucket("fast", rate=1_000, burst=1_000)
    waits = draw([[slow], [slow], [fast], [slow], [fast]], within=1)
    assert [wait <= 1 for wait in waits] == [True, False, True, False, True]


def test_takers_share_one_bucket() -> None:
    with ThreadPoolExecutor(4) as pool:
        waits = sorted(pool.map(lambda _: many(1_000, bucket())[-1], range(4)))
    assert waits == [about(1_000), about(2_000), about(3_000), about(4_000)]


def test_bucket_lost_by_redis_is_full_again_and_no_fuller() -> None:
    many(1_000, bucket())
    redis_client().flushdb()
    assert many(1_000, bucket())[::999] == [0, about(1_000)]


def test_bucket_nobody_uses_goes_away_once_its_debt_is_paid() -> None:
    many(1, bucket(rate=100, burst=100))
    assert 0 < redis_client().ttl("b") <= 62
    many(1_000, bucket("debt"))
    assert redis_client().ttl("debt") == about(1_060)


@pytest.mark.parametrize("hangs", [False, True])
def test_without_redis_a_provider_is_fed_slower_and_never_at_once(hangs: bool) -> None:
    ask = [pace.provider_bucket(f"p{hangs}", 100)]
    with redis_away(hangs=hangs):
        began = time.monotonic()
        waits = pace.take([ask] * 20)
        assert waits == [pytest.approx(n * 0.1, abs=0.01) for n in range(1, 21)]
        # The ten that were granted are a debt that the next ones wait behind.
        (wait,) = pace.take([ask])
        assert 1.1 - (time.monotonic() - began) <= wait <= 1.1
    assert pace.take([ask]) == [0]


def test_local_buckets_fill_up_to_their_burst_and_start_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("common.buckets.time.monotonic", lambda: now)
    local, b = LocalBuckets(), bucket(rate=2, burst=3)
    assert local.draw([[b]] * 2, within=10) == [0.5, 1.0]
    now = 100.0
    assert local.draw([[b]] * 5, within=0.6) == [0, 0, 0, 0.5, 1.0]
    assert local.draw([[b]], within=10) == [1.0]


@pytest.mark.django_db
def test_mailbox_provider_with_a_rate_is_fed_by_it_and_holds_up_nobody_else(
    settings: Any,
) -> None:
    provider = msgspec.structs.replace(settings.EMAILAUTO.provider, mailbox_rates={"gmail": 1})
    settings.EMAILAUTO = msgspec.structs.replace(settings.EMAILAUTO, provider=provider)
    for n in range(4):
        for domain in ("gmail.com", "example.com"):
            address = f"u{n}@{domain}"
            MessageFactory(contact=ContactFactory(email=address, email_normalized=address))
    deliver_batch("transactional", limit=25)
    sent = Message.objects.filter(state="sent").values_list("email", flat=True)
    assert sum(address.endswith("@example.com") for address in sent) == 4
    # One at once, and one more that was worth waiting a second for.
    assert 1 <= sum(address.endswith("@gmail.com") for address in sent) <= 2
    waiting = Message.objects.filter(state="queued", due_at__gt=Now())
    assert waiting.count() == 8 - len(sent)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("ada@gmail.com", "gmail"),
        ("ada@googlemail.com", "gmail"),
        ("ada@hotmail.co.uk", "microsoft"),
        ("ada@aol.com", "yahoo"),
        ("ada@web.de", "united_internet"),
        ("ada@example.com", "other"),
        ("ada@notgmail.com", "other"),
        ("", "other"),
    ],
)
def test_address_belongs_to_a_mailbox_provider(address: str, name: str) -> None:
    assert mailbox_provider(address) == name


def test_no_domain_belongs_to_two_mailbox_providers() -> None:
    domains = [domain for names in _DOMAINS.values() for domain in names.split()]
    assert len(domains) == len(set(domains))


@pytest.mark.django_db(transaction=True)
def test_r15_no_window_sees_more_than_rate_and_burst_however_many_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEST_KEY", "a key")
    due: list[tuple[float, float]] = []  # between which instants each may leave
    draw = pace.take

    def noting_draw(draws: Any) -> list[float]:
        before = time.monotonic()
        waits = draw(draws)
        after = time.monotonic()
        due.extend((before + wait, after + wait) for wait in waits if wait <= pace.WITHIN_SECONDS)
        return waits

    monkeypatch.setattr(pace, "take", noting_draw)
    with fake_esp() as esp:
        taken_at: list[float] = []
        take = esp.take

        def noting(*mail: Any) -> None:
            taken_at.append(time.monotonic())
            take(*mail)

        esp.take = noting  # type: ignore[method-assign]
        provider = ProviderFactory(
            key="esp", backend="postmark", api_url=esp.url, secret_env="TEST_KEY", rate_limit=10
        )
        MessageFactory.create_batch(45, sender=SenderFactory(provider=provider))

        def worker(_: int) -> None:
            try:
                deadline = time.monotonic() + 60
                while len(taken_at) < 45 and time.monotonic() < deadline:
                    drain("transactional", budget=1)
                    time.sleep(0.05)
            finally:
                connection.close()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(worker, range(4)))
    assert Message.objects.filter(state="sent").count() == 45
    assert set(esp.ledger.values()) == {1}
    # What a busy machine adds between a mail's turn and its arrival is not the buckets' doing.
    assert len(due) == 45
    for start, _ in due:
        assert sum(start <= early and late < start + 1 for early, late in due) <= 10 + 10
    for at, (early, _) in zip(sorted(taken_at), sorted(due), strict=True):
        assert at >= early


@pytest.mark.django_db
@pytest.mark.parametrize("minutes", [-10, 10])
def test_r13_clock_of_the_worker_does_not_count(minutes: int) -> None:
    message = MessageFactory()
    later = MessageFactory()
    Message.objects.filter(pk=later.pk).update(due_at=Now() + timedelta(minutes=5))
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=minutes), tick=True):
        drain("transactional", budget=5)
        recovery.recover()
        drain("transactional", budget=5)
    assert Message.objects.get(pk=message.pk).state == "sent"
    assert Message.objects.get(pk=later.pk).state == "queued"


def test_buckets_of_one_process_may_start_full_and_do_not_grow_without_bound() -> None:
    local = LocalBuckets(start_full=True, most=3)
    buckets = [Bucket(f"b{n}", 0.001, 1.0) for n in range(4)]
    assert [local.draw([[b]], within=0.0)[0] > 0 for b in (*buckets[:3], buckets[0])] == [
        *(False, False, False),
        True,
    ]
    assert local.draw([[buckets[3]]], within=0.0) == [0.0]
    assert local.draw([[buckets[0]]], within=0.0)[0] > 0
    for n in range(100):
        local.draw([[Bucket(f"c{n}", 0.001, 1.0)]], within=0.0)
        assert len(local._levels) <= 4

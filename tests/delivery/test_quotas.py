"""Caps per hour and per day: never exceeded, whoever counts at the same time."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from common.outages import insist
from delivery import departures, recovery
from delivery.engine import deliver_batch, drain
from delivery.models import Message, Quota, SandboxMail
from delivery.quotas import DAY, HOUR, Full, Limit, Reserved, give_back, reserve
from tests.delivery.fakeesp import Answer, fake_esp
from tests.factories import MessageFactory, ProviderFactory, SenderFactory


def limit(name: str = "l", *, most: int, window: str = HOUR) -> Limit:
    return Limit(name, window, most)


def granted(wanted: list[list[Limit]]) -> list[bool]:
    with transaction.atomic():
        return [isinstance(grant, list) for grant in reserve(wanted)]


@pytest.mark.django_db
def test_no_more_is_granted_than_there_is() -> None:
    assert granted([[limit(most=3)]] * 5) == [True, True, True, False, False]
    assert granted([[limit(most=3)]]) == [False]
    assert granted([[limit(most=4)]] * 2) == [True, False]


@pytest.mark.django_db
def test_message_counts_against_all_its_limits_or_none() -> None:
    wide, narrow = limit("wide", most=9, window=DAY), limit("narrow", most=1)
    assert granted([[wide, narrow], [wide, narrow], [wide]]) == [True, False, True]
    assert dict(Quota.objects.values_list("name", "used")) == {"wide": 2, "narrow": 1}


@pytest.mark.django_db
def test_wait_is_that_for_the_next_window() -> None:
    with transaction.atomic():
        (hour,) = reserve([[limit(most=0)]])
        (day,) = reserve([[limit("d", most=0, window=DAY)]])
    assert isinstance(hour, Full)
    assert isinstance(day, Full)
    now = datetime.now(UTC)
    next_hour = (now + timedelta(hours=1)).replace(minute=0, second=0, microsecond=0)
    next_day = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    assert hour.seconds == pytest.approx((next_hour - now).total_seconds(), abs=10)
    assert day.seconds == pytest.approx((next_day - now).total_seconds(), abs=10)


@pytest.mark.django_db
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu"])
def test_r16_windows_are_those_of_utc_whatever_zone_the_session_has(zone: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('timezone', %s, true)", [zone])
    assert granted([[limit("h", most=1), limit("d", most=1, window=DAY)]]) == [True]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name, to_char(starts_at AT TIME ZONE 'UTC', 'MI:SS') FROM delivery_quota "
            "WHERE starts_at <= now() AND now() - starts_at < interval '1 day' ORDER BY name"
        )
        assert cursor.fetchall() == [("d", "00:00"), ("h", "00:00")]


@pytest.mark.django_db
def test_yesterdays_use_is_over() -> None:
    assert granted([[limit(most=1)]]) == [True]
    Quota.objects.update(starts_at=F("starts_at") - timedelta(hours=1))
    assert granted([[limit(most=1)]] * 2) == [True, False]


@pytest.mark.django_db
def test_r17_what_is_rolled_back_was_never_counted() -> None:
    with transaction.atomic():
        reserve([[limit(most=1)]])
        transaction.set_rollback(True)
    assert granted([[limit(most=1)]]) == [True]


@pytest.mark.django_db
def test_what_was_not_begun_is_given_back() -> None:
    with transaction.atomic():
        (grant,) = reserve([[limit(most=1)]])
    assert isinstance(grant, list)
    give_back([*grant, Reserved("nobody's", grant[0].starts_at)])
    assert granted([[limit(most=1)]]) == [True]


@pytest.mark.django_db
def test_number_of_statements_is_the_same_for_1_and_50() -> None:
    counts = []
    for size in (1, 50):
        limits = [[limit(f"{n}", most=9), limit(f"d{n}", most=9, window=DAY)] for n in range(size)]
        with CaptureQueriesContext(connection) as queries, transaction.atomic():
            reserve(limits)
        counts.append(len(queries))
    assert counts[0] == counts[1]


@pytest.mark.django_db(transaction=True)
def test_p6_many_at_once_never_exceed_it() -> None:
    def worker(seed: int) -> int:
        limits = [limit("a", most=60), limit("b", most=40, window=DAY)]
        own = limits if seed % 2 else limits[::-1]
        try:
            return sum(sum(granted([own] * 7)) for _ in range(5))
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        total = sum(pool.map(worker, range(8)))
    assert total == 40
    assert dict(Quota.objects.values_list("name", "used")) == {"a": 40, "b": 40}


@pytest.mark.django_db
def test_mail_beyond_the_cap_waits_and_leaves_in_the_next_hour() -> None:
    provider = ProviderFactory(hourly_cap=3, daily_cap=100)
    MessageFactory.create_batch(5, sender=SenderFactory(provider=provider))
    drain("transactional", budget=5)
    assert SandboxMail.objects.count() == 3
    held = Message.objects.filter(state="held", reason="cap_reached")
    assert held.count() == 2
    recovery.recover()
    assert held.count() == 2
    # An hour later.
    an_hour_ago = F("starts_at") - timedelta(hours=1)
    Quota.objects.filter(name__endswith=":hour").update(starts_at=an_hour_ago)
    Message.objects.update(handed_over_at=F("handed_over_at") - timedelta(hours=1))
    held.update(due_at=Now())
    recovery.recover()
    drain("transactional", budget=5)
    assert set(Message.objects.values_list("state", "reason")) == {("sent", "")}


@pytest.mark.django_db
def test_hand_overs_that_were_not_begun_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "a key")
    with fake_esp() as esp:
        provider = ProviderFactory(
            key="esp", backend="postmark", api_url=esp.url, secret_env="TEST_KEY", hourly_cap=10
        )
        MessageFactory.create_batch(8, sender=SenderFactory(provider=provider))
        esp.script = [Answer(429, "slow", {"Retry-After": "60"})]
        deliver_batch("transactional", limit=25)
        assert len(esp.requests) == 1
    assert Quota.objects.get().used == 1


@pytest.mark.django_db(transaction=True)
def test_cap_holds_while_workers_race_for_it() -> None:
    provider = ProviderFactory(daily_cap=20)
    MessageFactory.create_batch(60, sender=SenderFactory(provider=provider))

    def worker(_: Any) -> None:
        try:
            insist(lambda: drain("transactional", budget=5))
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(worker, range(4)))
    assert SandboxMail.objects.count() == 20
    assert Message.objects.filter(state="held").count() == 40


@pytest.mark.django_db(transaction=True)
def test_counting_and_giving_back_never_wait_for_each_other_in_circles() -> None:
    names = ["a", "b", "c", "d"]
    limits = [limit(name, most=10**6, window=DAY) for name in names]

    def worker(seed: int) -> None:
        try:
            for n in range(40):
                order = limits if (seed + n) % 2 else limits[::-1]
                with transaction.atomic():
                    grants = reserve([order] * 2)
                if seed % 2:
                    give_back(one for grant in grants if isinstance(grant, list) for one in grant)
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(worker, range(6)))
    assert set(Quota.objects.values_list("used", flat=True)) == {3 * 40 * 2}


@pytest.mark.django_db
def test_what_cannot_leave_anyway_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = ProviderFactory(hourly_cap=3)
    MessageFactory.create_batch(20, sender=SenderFactory(provider=provider))
    made = 0
    as_usual = departures.build_outbound

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal made
        made += 1
        return as_usual(*args, **kwargs)

    monkeypatch.setattr(departures, "build_outbound", counting)
    drain("transactional", budget=5)
    assert (made, SandboxMail.objects.count()) == (3, 3)
    assert Message.objects.filter(state="held", reason="cap_reached").count() == 17


@pytest.mark.django_db
def test_r17_lease_lost_before_the_hand_over_costs_no_quota(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    provider = ProviderFactory(hourly_cap=10)
    MessageFactory.create_batch(3, sender=SenderFactory(provider=provider))
    reserve_all = departures.reserve

    def reserve_late(wanted: Any) -> Any:
        granted = reserve_all(wanted)
        # Another worker has taken one of them over meanwhile.
        lost = Message.objects.order_by("pk").values("pk")[:1]
        Message.objects.filter(pk__in=lost).update(lease_owner="another")
        return granted

    monkeypatch.setattr(departures, "reserve", reserve_late)
    deliver_batch("transactional", limit=10)
    assert SandboxMail.objects.count() == 2
    assert Quota.objects.get().used == 2

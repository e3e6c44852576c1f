"""Warm-up: caps that climb on good days, fall on bad ones, and are never exceeded."""

from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from common.postgres import database_time
from delivery import recovery
from delivery.engine import drain
from delivery.models import (
    Bounce,
    Message,
    Quota,
    SandboxMail,
    Warmup,
    WarmupPlan,
    WarmupStage,
)
from delivery.quotas import DAY
from delivery.warmup import Day, limit_name, load_warmups, look_back, next_stage, restarted
from tests.factories import ContactFactory, MessageFactory, ProviderFactory, SenderFactory

DAYS = [50, 70, 100, 140, 190, 270]


@pytest.mark.parametrize(
    ("used", "day", "stage", "why"),
    [
        (100, Day(100), 3, "goes on"),
        (70, Day(70), 3, "goes on"),
        (69, Day(69), 2, "stays"),
        (0, Day(), 2, "stays"),
        # Chance: not good enough to climb, not bad enough to fall.
        (100, Day(100, bounces=2), 2, "stays"),
        (100, Day(100, complaints=1), 2, "stays"),
        (100, Day(100, deferrals=5), 2, "stays"),
        (100, Day(100, bounces=1), 3, "goes on"),
        (100, Day(100, bounces=10), 0, "goes back"),
        (100, Day(100, deferrals=20), 0, "goes back"),
        (10_000, Day(10_000, complaints=30), 0, "goes back"),
        (10, Day(10, bounces=9), 0, "goes back"),
    ],
)
def test_day_decides_about_the_next(used: int, day: Day, stage: int, why: str) -> None:
    after, note = next_stage(2, DAYS, used, day)
    assert after == stage
    assert note.startswith(why)


def test_plan_ends_in_no_limit_and_a_bad_day_brings_it_back() -> None:
    assert next_stage(5, DAYS, 270, Day(270))[0] == 6
    assert next_stage(6, DAYS, 5_000, Day(5_000))[0] == 6
    assert next_stage(6, DAYS, 5_000, Day(5_000, bounces=500))[0] == 4
    assert next_stage(1, DAYS, 70, Day(70, bounces=70))[0] == 0


@pytest.mark.parametrize(("stage", "again"), [(6, 0), (5, 0), (0, 0)])
def test_long_silence_begins_anew_at_a_quarter(stage: int, again: int) -> None:
    assert restarted(stage, DAYS) == again
    assert restarted(9, [10, 20, 40, 80, 160, 320]) == 3


def warming(**fields: Any) -> Warmup:
    plan, _ = WarmupPlan.objects.get_or_create(key="p", defaults={"name": "P", "days": [10, 20]})
    return Warmup.objects.create(domain="example.com", plan=plan, **fields)


def to(address: str, count: int, **fields: Any) -> None:
    for n in range(count):
        email = f"u{n}@{address}"
        contact = ContactFactory(email=email, email_normalized=email)
        MessageFactory(contact=contact, **fields)


def deliver() -> None:
    for _ in range(5):
        drain("transactional", budget=5)


@pytest.mark.django_db
def test_each_mailbox_provider_has_a_cap_of_its_own_and_an_hour_a_fifth_of_it() -> None:
    sender = SenderFactory(email="shop@example.com")
    warming(provider=sender.provider)
    to("gmail.com", 4, sender=sender)
    to("web.de", 3, sender=sender)
    deliver()
    assert SandboxMail.objects.filter(to_email__endswith="gmail.com").count() == 2
    assert SandboxMail.objects.filter(to_email__endswith="web.de").count() == 2
    held = Message.objects.filter(state="held", reason="warming_up")
    assert held.count() == 3
    # An hour later.
    Quota.objects.filter(name__endswith=":hour").update(
        starts_at=F("starts_at") - timedelta(hours=1)
    )
    Message.objects.update(handed_over_at=F("handed_over_at") - timedelta(hours=1))
    held.update(due_at=Now())
    recovery.recover()
    deliver()
    assert SandboxMail.objects.count() == 7


@pytest.mark.django_db
def test_other_domain_and_other_provider_are_not_held_up() -> None:
    warming(provider=SenderFactory(email="shop@example.com").provider)
    other = SenderFactory(email="shop@example.org", provider=ProviderFactory())
    to("gmail.com", 5, sender=other)
    deliver()
    assert SandboxMail.objects.count() == 5


@pytest.mark.django_db
def test_what_is_too_much_spills_to_a_warm_provider_of_the_pool() -> None:
    cold = ProviderFactory(key="cold", pool="main")
    warm = ProviderFactory(key="warm", pool="main")
    warming(provider=cold)
    sender = SenderFactory(email="shop@example.com", provider=cold)
    to("gmail.com", 2, sender=sender)
    deliver()
    to("gmx.net", 2, sender=sender)
    more = [ContactFactory(email=e, email_normalized=e) for e in ("a@gmail.com", "b@gmail.com")]
    for contact in more:
        MessageFactory(contact=contact, sender=sender)
    deliver()
    assert set(Message.objects.values_list("state", flat=True)) == {"sent"}
    assert Message.objects.filter(provider=warm).count() == 2
    assert set(Message.objects.filter(provider=warm).values_list("contact_id", flat=True)) == {
        contact.pk for contact in more
    }


def yesterday() -> date:
    return (datetime.now(UTC) - timedelta(days=1)).date()


def was_used(warmup: Warmup, count: int, mailboxes: str = "gmail") -> None:
    name = limit_name(warmup.provider_id, warmup.domain, mailboxes)
    starts_at = datetime.combine(yesterday(), datetime.min.time(), UTC)
    Quota.objects.create(name=f"{name}:day", starts_at=starts_at, most=10, used=count)


def was_sent(warmup: Warmup, count: int, **fields: Any) -> None:
    sent_at = datetime.combine(yesterday(), datetime.min.time(), UTC) + timedelta(hours=12)
    for _ in range(count):
        MessageFactory(
            sent_at=sent_at,
            provider=warmup.provider,
            sending_domain=warmup.domain,
            email_normalized="ada@gmail.com",
            mailboxes="gmail",
            **{"state": "sent", **fields},
        )


def on_the_third_day(warmup: Warmup) -> None:
    before = yesterday() - timedelta(days=1)
    WarmupStage.objects.create(
        warmup=warmup, mailboxes="gmail", stage=2, judged_on=before, used_on=before
    )


@pytest.mark.django_db
def test_good_day_is_looked_back_on_once() -> None:
    warmup = warming(provider=ProviderFactory())
    was_used(warmup, 10)
    was_sent(warmup, 10)
    assert look_back() == 1
    assert look_back() == 0
    stage = WarmupStage.objects.get()
    assert (stage.mailboxes, stage.stage, stage.judged_on) == ("gmail", 1, yesterday())
    assert stage.note.startswith("goes on")


@pytest.mark.django_db
def test_bad_day_costs_two() -> None:
    warmup = warming(provider=ProviderFactory())
    on_the_third_day(warmup)
    was_used(warmup, 10)
    was_sent(warmup, 5)
    was_sent(warmup, 5, bounced_at=Now())
    look_back()
    assert WarmupStage.objects.get().stage == 0


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("bounce_class", "state", "after"),
    [("throttle", "sent", 0), ("hard", "failed", 0), ("auth", "failed", 2), ("soft", "dead", 0)],
)
def test_what_the_receiver_answered_at_the_hand_over_counts(
    bounce_class: str, state: str, after: int
) -> None:
    warmup = warming(provider=ProviderFactory())
    on_the_third_day(warmup)
    was_used(warmup, 10)
    was_sent(warmup, 5)
    was_sent(warmup, 5, state=state)
    answered = Message.objects.order_by("-pk")[:5]
    noon = answered[0].sent_at
    if state != "sent":
        Message.objects.filter(pk__in=[m.pk for m in answered]).update(sent_at=None)
    Bounce.objects.bulk_create(
        Bounce(message=m, bounce_class=bounce_class, source="smtp", at=noon) for m in answered
    )
    look_back()
    assert WarmupStage.objects.get().stage == after


@pytest.mark.django_db
def test_most_engaged_leave_first_when_the_next_window_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery, "_LIMIT", 2)
    for name, days in (("never", None), ("long ago", 300), ("today", 0), ("lately", 9)):
        engaged = Now() - timedelta(days=days) if days is not None else None
        contact = ContactFactory(name=name, engaged_at=engaged)
        held = MessageFactory(contact=contact, state="held", reason="warming_up")
        Message.objects.filter(pk=held.pk).update(due_at=Now() - timedelta(seconds=1))
    assert recovery.release_held() == 2
    queued = Message.objects.filter(state="queued").values_list("contact__name", flat=True)
    assert set(queued) == {"today", "lately"}


@pytest.mark.django_db
def test_day_without_mail_changes_nothing_and_a_month_without_begins_anew() -> None:
    warmup = warming(provider=ProviderFactory())
    long_ago = yesterday() - timedelta(days=40)
    stage = WarmupStage.objects.create(
        warmup=warmup, mailboxes="gmail", stage=1, judged_on=long_ago, used_on=long_ago
    )
    look_back()
    stage.refresh_from_db()
    assert (stage.stage, stage.judged_on, stage.used_on) == (1, yesterday(), long_ago)
    WarmupStage.objects.update(judged_on=long_ago)
    was_used(warmup, 10)
    look_back()
    stage.refresh_from_db()
    # The day itself was one of the first day's size, and it went well.
    assert (stage.stage, stage.used_on) == (1, yesterday())
    assert stage.note == "began again after 40 days; goes on: 10 of 10 were sent"


@pytest.mark.django_db
@pytest.mark.parametrize("idle", [29, 30, 90])
@pytest.mark.parametrize("stage", [29, 30], ids=["last day", "warm"])
def test_first_mail_after_a_month_of_silence_finds_the_smaller_cap(idle: int, stage: int) -> None:
    plan = WarmupPlan.objects.get(key="careful")
    warmup = Warmup.objects.create(provider=ProviderFactory(), domain="shop.example", plan=plan)
    today = database_time().date()
    WarmupStage.objects.create(
        warmup=warmup,
        mailboxes="gmail",
        stage=stage,
        judged_on=today - timedelta(days=1),
        used_on=today - timedelta(days=idle),
    )
    limits = load_warmups().limits(warmup.provider_id, "shop.example", "a@gmail.com")
    caps = [limit.most for limit in limits if limit.window == DAY]
    days = warmup.plan.days
    expected = [] if stage >= len(days) else [days[stage]]
    assert caps == (expected if idle < 30 else [days[restarted(stage, days)]])


@pytest.mark.django_db
def test_warm_domain_is_watched_by_what_it_sent() -> None:
    warmup = warming(provider=ProviderFactory())
    before = yesterday() - timedelta(days=1)
    warm = len(warmup.plan.days)
    WarmupStage.objects.create(
        warmup=warmup, mailboxes="gmail", stage=warm, judged_on=before, used_on=before
    )
    was_sent(warmup, 5)
    was_sent(warmup, 5, bounced_at=Now())
    look_back()
    stage = WarmupStage.objects.get()
    assert (stage.stage, stage.used_on) == (max(0, warm - 2), yesterday())
    assert stage.note.startswith("goes back: bounces")


def test_plans_that_come_along_grow_and_begin_as_they_say() -> None:
    migration = import_module("delivery.migrations.0003_warmup_plans")
    plans = {key: days for key, _, days in migration.PLANS}
    for days in plans.values():
        assert list(days) == sorted(days)
    assert plans["careful"][:4] == [50, 70, 98, 140]
    assert plans["standard"][:3] == [300, 390, 510]
    assert plans["ses"][44] == pytest.approx(50_000, rel=0.01)
    assert plans["sendgrid"][0] == 100


@pytest.mark.django_db
def test_looking_back_asks_as_much_for_many_warm_ups_as_for_one() -> None:
    counts = []
    for size in (1, 9):
        for _ in range(size):
            was_used(warming(provider=ProviderFactory(key=f"p{Warmup.objects.count()}")), 10)
        with CaptureQueriesContext(connection) as queries:
            assert look_back() == size
        counts.append(len(queries))
    assert counts[0] == counts[1]

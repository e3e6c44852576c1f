"""Warm-up: a plan's daily caps per provider, sending domain and mailbox provider.

A day is climbed only after a day that was used and went well; a bad day costs two. After a month of
silence, also of a warm domain, the first mail already finds smaller caps. Days are UTC's.
The caps are quotas like the others and as hard; an hour may take a fifth of a day.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, timedelta

from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Greatest, Now, TruncDate

from common.postgres import database_time
from delivery.mailboxes import mailbox_provider
from delivery.models import Quota, Warmup, WarmupStage
from delivery.quotas import DAY, HOUR, Limit
from delivery.rates import at_least

PREFIX = "warmup:"
HOURS_SHARE = 5
ENOUGH_USED = 0.7
MOST_BOUNCES = 0.02
MOST_COMPLAINTS = 0.001
MOST_DEFERRALS = 0.05
STEPS_BACK = 2
IDLE_DAYS = 30
RESTART_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Day:
    """What became of a day's mail to one mailbox provider."""

    sent: int = 0
    bounces: int = 0
    complaints: int = 0
    deferrals: int = 0


Key = tuple[int, str]
"""Provider's id and sending domain."""


class Warmups:
    """The warm-ups that are going on, as they stand on a day."""

    def __init__(self, warmups: Iterable[Warmup], today: date) -> None:
        self._days: dict[Key, Sequence[int]] = {}
        self._stages: dict[Key, dict[str, int]] = {}
        for warmup in warmups:
            key = (warmup.provider_id, warmup.domain)
            days = self._days[key] = warmup.plan.days
            self._stages[key] = {
                row.mailboxes: stage_on(row, days, today)[0] for row in warmup.stages.all()
            }

    def __bool__(self) -> bool:
        return bool(self._days)

    def limits(self, provider: int, domain: str, address: str) -> list[Limit]:
        """What a mail from the domain through the provider to this address counts against; empty
        once that is warm, or was never to be warmed up."""
        days = self._days.get((provider, domain))
        if days is None:
            return []
        mailboxes = mailbox_provider(address)
        stage = self._stages[provider, domain].get(mailboxes, 0)
        if stage >= len(days):
            return []
        name = limit_name(provider, domain, mailboxes)
        return [
            Limit(f"{name}:{HOUR}", HOUR, math.ceil(days[stage] / HOURS_SHARE)),
            Limit(f"{name}:{DAY}", DAY, days[stage]),
        ]


def load_warmups() -> Warmups:
    """Two queries, one while nothing is being warmed up."""
    active = Warmup.objects.filter(is_active=True).select_related("plan")
    # By the database's clock, as the quotas.
    dated = active.annotate(today=TruncDate(Now(), tzinfo=UTC))
    warmups = list(dated.prefetch_related("stages"))
    return Warmups(warmups, warmups[0].today if warmups else date.min)


def limit_name(provider: int, domain: str, mailboxes: str) -> str:
    """The common part of the names of its limits."""
    return f"{PREFIX}{provider}:{domain}:{mailboxes}"


def next_stage(stage: int, days: Sequence[int], used: int, day: Day) -> tuple[int, str]:
    """Where a stage goes after a day, and why. Pure."""
    if breach := _breach(day):
        return max(0, stage - STEPS_BACK), breach
    cap = days[min(stage, len(days) - 1)]
    if used < ENOUGH_USED * cap:
        return stage, f"stays: {used} of {cap} were sent"
    if doubt := _doubt(day):
        return stage, f"stays: {doubt}"
    return min(stage + 1, len(days)), f"goes on: {used} of {cap} were sent"


def restarted(stage: int, days: Sequence[int]) -> int:
    """The stage after a long silence: the last one with at most a quarter of what it had got to."""
    reached = days[min(stage, len(days) - 1)] * RESTART_SHARE
    return max((n for n, cap in enumerate(days) if cap <= reached), default=0)


def stage_on(row: WarmupStage, days: Sequence[int], day: date) -> tuple[int, int]:
    """The stage that counts on a day on which mail is sent, and after how many days of silence it
    was put back; 0 if it was not. Pure."""
    idle = (day - row.used_on).days if row.used_on else 0
    return (restarted(row.stage, days), idle) if idle >= IDLE_DAYS else (row.stage, 0)


def _breach(day: Day) -> str:
    for count, most, what in _measures(day):
        # One case is chance; what is at least this bad at 95 % is not.
        if count > 1 and at_least(count, day.sent) >= most:
            return f"goes back: {what} {count} of {day.sent}"
    return ""


def _doubt(day: Day) -> str:
    for count, most, what in _measures(day):
        if day.sent and count / day.sent >= most:
            return f"{what} {count} of {day.sent}"
    return ""


def _measures(day: Day) -> tuple[tuple[int, float, str], ...]:
    return (
        (day.bounces, MOST_BOUNCES, "bounces"),
        (day.complaints, MOST_COMPLAINTS, "complaints"),
        (day.deferrals, MOST_DEFERRALS, "deferrals"),
    )


# --- Once a day ----------------------------------------------------------------------------------


def look_back() -> int:
    """Judge yesterday, once, for every warm-up; returns how many stages were judged. The number of
    queries does not depend on how many there are."""
    active = Warmup.objects.filter(is_active=True).select_related("plan")
    warmups = {warmup.pk: warmup for warmup in active.prefetch_related("stages")}
    if not warmups:
        return 0
    yesterday = _today() - timedelta(days=1)
    used = _used(yesterday)
    new = [stage for warmup in warmups.values() for stage in _begun(warmup, used, yesterday)]
    known = [stage for warmup in warmups.values() for stage in warmup.stages.all()]
    if not new and all(stage.judged_on >= yesterday for stage in known):
        return 0
    days = _days(yesterday)
    with transaction.atomic():
        WarmupStage.objects.bulk_create(new, ignore_conflicts=True)
        due = WarmupStage.objects.filter(warmup__in=warmups, judged_on__lt=yesterday)
        stages = list(due.order_by("pk").select_for_update())
        for stage in stages:
            warmup = warmups[stage.warmup_id]
            name = limit_name(warmup.provider_id, warmup.domain, stage.mailboxes)
            day = days[warmup.provider_id, warmup.domain, stage.mailboxes]
            is_warm = stage.stage >= len(warmup.plan.days)
            # What is warm has no caps, so nothing is counted against them.
            count = max(used[f"{name}:{DAY}"], day.sent if is_warm else 0)
            _judge(stage, warmup.plan.days, count, day, yesterday)
        WarmupStage.objects.bulk_update(stages, ["stage", "note", "used_on", "judged_on"])
    return len(stages)


def step_back(domain: str, mailboxes: str) -> None:
    """After a pause: every warm-up of the domain with this mailbox provider two days back."""
    stages = WarmupStage.objects.filter(
        warmup__is_active=True, warmup__domain=domain, mailboxes=mailboxes
    )
    stages.update(stage=Greatest(0, F("stage") - STEPS_BACK), note="goes back: it was paused")


def _judge(row: WarmupStage, days: Sequence[int], used: int, day: Day, on: date) -> None:
    if used:
        stage, idle = stage_on(row, days, on)
        row.stage, row.note = next_stage(stage, days, used, day)
        if idle:
            row.note = f"began again after {idle} days; {row.note}"
        row.used_on = on
    row.judged_on = on


def _begun(warmup: Warmup, used: Iterable[str], on: date) -> list[WarmupStage]:
    """First stages for the mailbox providers that got mail on that day and have none yet."""
    prefix = limit_name(warmup.provider_id, warmup.domain, "")
    known = {stage.mailboxes for stage in warmup.stages.all()}
    names = {name.split(":")[-2] for name in used if name.startswith(prefix)}
    before = on - timedelta(days=1)
    return [
        WarmupStage(warmup=warmup, mailboxes=mailboxes, judged_on=before)
        for mailboxes in sorted(names - known)
    ]


def _used(on: date) -> Counter[str]:
    rows = Quota.objects.filter(name__startswith=PREFIX, name__endswith=f":{DAY}")
    used = rows.filter(starts_at__date=on, used__gt=0)
    return Counter(dict(used.values_list("name", "used")))


# What was refused in the hand-over counts as if it had come back.
_DAYS = """
    WITH mails AS (
        SELECT m.provider_id, m.sending_domain, m.mailboxes, m.bounced_at IS NOT NULL AS bounced,
               m.complained_at IS NOT NULL AS complained, EXISTS (
               SELECT FROM delivery_bounce AS b WHERE b.message_id = m.id
                  AND b.bounce_class IN ('soft', 'throttle', 'block')) AS deferred
        FROM delivery_message AS m
        WHERE m.sent_at >= %(day)s::timestamp AT TIME ZONE 'UTC'
          AND m.sent_at < (%(day)s::date + 1)::timestamp AT TIME ZONE 'UTC'
      UNION ALL
        SELECT m.provider_id, m.sending_domain, m.mailboxes,
               bool_or(b.bounce_class IN ('hard', 'owner_changed')), false,
               bool_or(b.bounce_class IN ('soft', 'throttle', 'block'))
        FROM delivery_bounce AS b JOIN delivery_message AS m ON m.id = b.message_id
        WHERE m.sent_at IS NULL AND b.at >= %(day)s::timestamp AT TIME ZONE 'UTC'
          AND b.at < (%(day)s::date + 1)::timestamp AT TIME ZONE 'UTC'
        GROUP BY m.id
    )
    SELECT provider_id, sending_domain, mailboxes, count(*), count(*) FILTER (WHERE bounced),
           count(*) FILTER (WHERE complained), count(*) FILTER (WHERE deferred)
    FROM mails GROUP BY 1, 2, 3
"""


def _days(on: date) -> Mapping[tuple[int, str, str], Day]:
    with connection.cursor() as cursor:
        cursor.execute(_DAYS, {"day": on})
        rows = cursor.fetchall()
    return defaultdict(Day, {tuple(row[:3]): Day(*row[3:]) for row in rows})


def _today() -> date:
    return database_time().astimezone(UTC).date()


# --- For people ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bar:
    """One day: what the plan allowed, and what was sent."""

    day: date
    most: int
    used: int


@dataclass(frozen=True, slots=True)
class Progress:
    """A warm-up with one mailbox provider; `stage` counts from 1, one more than there are days
    when it is warm."""

    mailboxes: str
    stage: int
    note: str
    bars: list[Bar]


def progress_of(warmup: Warmup, *, days: int = 30) -> list[Progress]:
    """Plan against reality, per mailbox provider that got mail. Two queries."""
    since = _today() - timedelta(days=days)
    prefix = limit_name(warmup.provider_id, warmup.domain, "")
    rows = Quota.objects.filter(name__startswith=prefix, name__endswith=f":{DAY}")
    bars: dict[str, list[Bar]] = defaultdict(list)
    for row in rows.filter(starts_at__date__gte=since).order_by("starts_at"):
        bars[row.name.split(":")[-2]].append(Bar(row.starts_at.date(), row.most, row.used))
    stages = {stage.mailboxes: stage for stage in warmup.stages.all()}
    return [
        Progress(name, stages[name].stage + 1, stages[name].note, bars[name])
        if name in stages
        else Progress(name, 1, "", bars[name])
        for name in sorted({*bars, *stages})
    ]

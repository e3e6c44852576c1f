"""The reputation breaker (R18): what is at fault is slowed down, then stopped; what is not goes on;
held mail is held."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from common.postgres import database_time
from delivery import recovery, reputation
from delivery.bounces import BounceClass
from delivery.engine import drain
from delivery.models import (
    Bounce,
    Message,
    Pardon,
    Provider,
    SandboxMail,
    Switch,
    WarmupPlan,
    WarmupStage,
)
from delivery.rates import at_least
from delivery.reputation import Finding, Level, finding, judge
from delivery.routes import SANDBOX
from delivery.services import mark_unknown_sent, resume_sending, stop_sending
from delivery.tallies import Counts
from tests.factories import MessageFactory, ProviderFactory, SenderFactory

NOTHING, SLOW, STOP = Level.NOTHING, Level.SLOW, Level.STOP
CAMPAIGN, MAILBOXES, STREAM = Switch.Target.CAMPAIGN, Switch.Target.MAILBOXES, Switch.Target.STREAM
DOMAIN, PROVIDER = Switch.Target.DOMAIN, Switch.Target.PROVIDER


@pytest.mark.parametrize(
    ("target", "counts", "level"),
    [
        (CAMPAIGN, Counts(), NOTHING),
        (CAMPAIGN, Counts(sent_day=10, bounced=10), NOTHING),  # too few to say
        (CAMPAIGN, Counts(sent_day=30, bounced=25), STOP),
        (CAMPAIGN, Counts(sent_day=500, bounced=25), SLOW),  # 5 %, and it may be chance
        (CAMPAIGN, Counts(sent_day=500, bounced=40), STOP),
        (CAMPAIGN, Counts(sent_day=10_000, bounced=499), SLOW),
        (CAMPAIGN, Counts(sent_day=10_000, bounced=600), STOP),
        (CAMPAIGN, Counts(sent_day=10_000, bounced=190), NOTHING),
        (CAMPAIGN, Counts(sent_day=0, bounced=25), STOP),  # of mails before
        (CAMPAIGN, Counts(heard_day=200, complained=1), NOTHING),
        (CAMPAIGN, Counts(heard_day=200, complained=4), NOTHING),
        (CAMPAIGN, Counts(heard_day=200, complained=5), STOP),
        (CAMPAIGN, Counts(heard_day=10_000, complained=30), SLOW),
        (CAMPAIGN, Counts(heard_day=10_000, complained=50), STOP),
        (CAMPAIGN, Counts(heard_week=100_000, complained_week=80), NOTHING),
        (CAMPAIGN, Counts(heard_week=100_000, complained_week=105), SLOW),
        (CAMPAIGN, Counts(heard_week=100_000, complained_week=130), STOP),
        (CAMPAIGN, Counts(sent_day=1_000, unsubscribed=12), NOTHING),
        (CAMPAIGN, Counts(sent_day=1_000, unsubscribed=300), SLOW),
        (CAMPAIGN, Counts(sent_hour=100, throttled=90), NOTHING),  # not the campaign's fault
        (MAILBOXES, Counts(sent_hour=100, throttled=9), NOTHING),
        (MAILBOXES, Counts(sent_hour=100, throttled=20), SLOW),
        (MAILBOXES, Counts(sent_hour=100, throttled=40), STOP),
        (MAILBOXES, Counts(sent_hour=1_000, blocked=40), SLOW),
        (MAILBOXES, Counts(sent_hour=1_000, blocked=80), STOP),
        (STREAM, Counts(sent_hour=1_000, blocked=80), STOP),
        (STREAM, Counts(sent_hour=1_000, throttled=900), NOTHING),
        (DOMAIN, Counts(sent_hour=1_000_000, unauthenticated=2), NOTHING),
        (DOMAIN, Counts(sent_hour=1_000_000, unauthenticated=3), SLOW),
        (DOMAIN, Counts(sent_hour=1_000_000, unauthenticated=10), STOP),
        (PROVIDER, Counts(sent_day=5, unknown=5), NOTHING),
        (PROVIDER, Counts(sent_day=1_000, unknown=10), NOTHING),
        (PROVIDER, Counts(sent_day=1_000, unknown=20), STOP),
    ],
)
def test_rate_is_a_fault_when_it_is_hardly_chance(
    target: str, counts: Counts, level: Level
) -> None:
    found = finding(target, counts)
    assert (found.level if found is not None else NOTHING) == level


def test_slow_down_halves_what_was_sent_lately() -> None:
    found = finding(DOMAIN, Counts(sent_hour=900, sent_day=1_000, unauthenticated=3))
    assert found is not None
    assert found.per_hour == 450
    found = finding(DOMAIN, Counts(unauthenticated=3))
    assert found is not None
    assert found.per_hour == 10


@pytest.mark.parametrize(
    ("count", "total", "bound"),
    # Wilson's interval at 95 %, from the textbook's formula.
    [
        (0, 0, 0),
        (0, 10, 0),
        (1, 10, 0.0179),
        (5, 10, 0.2366),
        (10, 10, 0.7225),
        (50, 1_000, 0.0381),
    ],
)
def test_lower_bound(count: int, total: int, bound: float) -> None:
    assert at_least(count, total) == pytest.approx(bound, abs=0.0001)


def sent(
    count: int, campaign: str = "", *, back_as: BounceClass | None = None, **fields: Any
) -> list[Message]:
    defaults = {
        "state": "sent",
        "stream": "marketing",
        "sending_domain": "example.com",
        "mailboxes": "yahoo",
        "sent_at": Now(),
        "handed_over_at": Now(),
    }
    values = {**defaults, "origin_campaign": campaign, **fields}
    messages = MessageFactory.create_batch(count, **values)
    if back_as is not None:
        Bounce.objects.bulk_create(
            Bounce(message=m, bounce_class=back_as, source="test") for m in messages
        )
    return messages


def switches() -> set[tuple[str, str, bool]]:
    """Target, key, and whether it is a stop."""
    rows = Switch.objects.filter(reason="reputation").values_list("target", "key", "per_hour")
    return {(target, key, per_hour is None) for target, key, per_hour in rows}


@pytest.mark.django_db
def test_campaign_at_fault_stops_alone() -> None:
    sent(30, "bad", back_as=BounceClass.HARD)
    sent(60, "good")
    assert [switch.key for switch in judge()] == ["bad"]
    assert switches() == {("campaign", "bad", True)}
    assert Switch.objects.get().note == "30 of 30 bounced in 24 h"
    assert judge() == []


@pytest.mark.django_db
def test_fault_of_no_campaign_in_particular_stops_the_stream_at_the_mailbox_provider() -> None:
    for n in range(10):
        sent(4, f"c{n}", back_as=BounceClass.HARD)
        sent(20, f"c{n}", mailboxes="microsoft")
    sent(5, "c1", sending_domain="example.org")
    judge()
    assert switches() == {("mailboxes", "marketing:example.com:yahoo", True)}


@pytest.mark.django_db
def test_fault_of_no_mailbox_provider_in_particular_stops_the_stream_of_the_domain() -> None:
    for n, name in enumerate(["yahoo", "microsoft", "comcast", "orange", "free", "other"]):
        sent(8, f"c{n}", mailboxes=name, back_as=BounceClass.HARD)
    judge()
    assert switches() == {("stream", "marketing:example.com", True)}


@pytest.mark.django_db
def test_mailbox_provider_that_puts_mail_off_gets_none_for_an_hour_then_two() -> None:
    sent(10, "c", back_as=BounceClass.THROTTLE)
    sent(10, "c", mailboxes="gmail")
    (switch,) = judge()
    assert switches() == {("mailboxes", "marketing:example.com:yahoo", True)}
    switch.refresh_from_db()
    assert hours(switch) == pytest.approx(1, abs=0.01)

    plan = WarmupPlan.objects.get(key="careful")
    warmup = ProviderFactory(key="w").warmups.create(domain="example.com", plan=plan)
    stage = WarmupStage.objects.create(
        warmup=warmup, mailboxes="yahoo", stage=5, judged_on=database_time().date()
    )
    Switch.objects.update(until=Now() - timedelta(seconds=1))
    assert judge() == []
    assert switches() == set()
    stage.refresh_from_db()
    assert stage.stage == 3

    # It comes to the same again within a day.
    Pardon.objects.update(at=Now() - timedelta(minutes=1))
    Bounce.objects.update(at=Now())
    (switch,) = judge()
    switch.refresh_from_db()
    assert hours(switch) == pytest.approx(2, abs=0.01)


def hours(switch: Switch) -> float:
    assert switch.until is not None
    return (switch.until - switch.created_at).total_seconds() / 3600


@pytest.mark.django_db
def test_bounces_and_complaints_stop_for_good() -> None:
    sent(30, "c", back_as=BounceClass.HARD)
    judge()
    assert Switch.objects.get().until is None


@pytest.mark.django_db
def test_failed_authentication_slows_the_domain_then_stops_it() -> None:
    sent(4, "a", back_as=BounceClass.AUTH)
    judge()
    assert switches() == {("domain", "example.com", False)}
    assert Switch.objects.get().per_hour == 10
    assert judge() == []
    sent(6, "b", stream="transactional", back_as=BounceClass.AUTH)
    (switch,) = judge()
    assert switches() == {("domain", "example.com", True)}
    assert "SPF, DKIM or DMARC" in switch.note


@pytest.mark.django_db
def test_slow_down_ends_with_its_cause() -> None:
    sent(4, "a", back_as=BounceClass.AUTH)
    judge()
    Bounce.objects.update(at=F("at") - timedelta(minutes=11))
    judge()
    assert switches() == set()
    assert not Pardon.objects.exists()


@pytest.mark.django_db
def test_complaints_count_where_complaints_are_told() -> None:
    sent(400, "c", mailboxes="gmail")
    sent(40, "c", mailboxes="yahoo")
    Message.objects.filter(pk__in=Message.objects.filter(mailboxes="yahoo")[:5]).update(
        complained_at=Now()
    )
    (switch,) = judge()
    assert switch.note == "5 of 40 called spam in 24 h; 5 of 40 called spam in 7 days"


@pytest.mark.django_db
def test_provider_with_too_many_doubts_is_stopped() -> None:
    provider = ProviderFactory(key="esp")
    sent(12, "c", state="unknown", sent_at=None, provider=provider)
    sent(100, "c", provider=provider)
    judge()
    assert switches() == {("provider", "esp", True)}


@pytest.mark.django_db
def test_stop_for_doubts_ends_when_they_are_cleared_up() -> None:
    provider = ProviderFactory(key="esp")
    doubts = sent(12, "c", state="unknown", sent_at=None, provider=provider)
    sent(100, "c", provider=provider)
    judge()
    held = MessageFactory(
        state="held", reason="reputation", sender=SenderFactory(provider=provider)
    )
    assert judge() == []
    assert switches() == {("provider", "esp", True)}
    mark_unknown_sent(message.pk for message in doubts[:8])
    judge()
    assert switches() == set()
    held.refresh_from_db()
    assert held.state == "queued"
    assert not Pardon.objects.exists()


@pytest.mark.django_db
def test_stop_for_doubts_stands_as_long_as_they_are_open_however_old() -> None:
    provider = ProviderFactory(key="esp")
    doubts = sent(12, "c", state="unknown", sent_at=None, provider=provider)
    sent(100, "c", provider=provider)
    judge()
    pass_by(timedelta(days=9))
    assert judge() == []
    assert switches() == {("provider", "esp", True)}
    mark_unknown_sent(message.pk for message in doubts[:8])
    judge()
    assert switches() == set()


@pytest.mark.django_db
def test_doubts_that_were_old_before_a_stop_do_not_prolong_it() -> None:
    provider = ProviderFactory(key="esp")
    sent(12, "c", state="unknown", sent_at=None, provider=provider)
    pass_by(timedelta(days=2))
    assert judge() == []
    doubts = sent(12, "c", state="unknown", sent_at=None, provider=provider)
    judge()
    assert switches() == {("provider", "esp", True)}
    mark_unknown_sent(message.pk for message in doubts)
    judge()
    assert switches() == set()


@pytest.mark.django_db
def test_old_doubts_about_one_provider_stop_no_other() -> None:
    sent(12, "c", state="unknown", sent_at=None, provider=ProviderFactory(key="esp"))
    judge()
    sent(12, "c", state="unknown", sent_at=None, provider=ProviderFactory(key="other"))
    pass_by(timedelta(days=2))
    assert judge() == []
    assert switches() == {("provider", "esp", True)}


@pytest.mark.django_db
def test_stop_for_doubts_that_was_lifted_by_hand_is_not_made_again_because_of_them() -> None:
    provider = ProviderFactory(key="esp")
    sent(12, "c", state="unknown", sent_at=None, provider=provider)
    judge()
    pass_by(timedelta(days=2))
    resume_sending("provider", "esp")
    assert judge() == []
    # Nor do they prolong one that is made for others.
    Pardon.objects.update(at=Now() - timedelta(minutes=1))
    doubts = sent(12, "c", state="unknown", sent_at=None, provider=provider)
    judge()
    assert switches() == {("provider", "esp", True)}
    mark_unknown_sent(message.pk for message in doubts[:8])
    judge()
    assert switches() == set()


def pass_by(time: timedelta) -> None:
    """As if so much of it had gone by since."""
    Switch.objects.update(created_at=F("created_at") - time)
    Message.objects.update(sent_at=F("sent_at") - time, handed_over_at=F("handed_over_at") - time)


@pytest.mark.django_db
def test_doubts_that_the_sweep_clears_up_stop_no_provider() -> None:
    provider = ProviderFactory(key="esp")
    sent(12, "c", state="unknown", sent_at=None, provider=provider, route=SANDBOX)
    sent(100, "c", provider=provider)
    judge()
    assert switches() == set()


@pytest.mark.django_db
def test_what_happened_before_yesterday_is_over() -> None:
    sent(30, "bad", back_as=BounceClass.HARD)
    Message.objects.update(sent_at=F("sent_at") - timedelta(hours=25))
    assert judge() == []


@pytest.mark.django_db
def test_r18_rest_of_the_campaign_is_held_and_leaves_when_somebody_says_so() -> None:
    sent(30, "bad", back_as=BounceClass.HARD)
    MessageFactory.create_batch(3, origin_campaign="bad", stream="transactional")
    MessageFactory(origin_campaign="other", stream="transactional")
    judge()
    drain("transactional", budget=5)
    assert SandboxMail.objects.count() == 1
    held = Message.objects.filter(state="held", reason="reputation")
    assert held.count() == 3
    assert resume_sending("campaign", "bad") == 3
    # The same bounces are not held against it again; new ones are.
    assert judge() == []
    drain("transactional", budget=5)
    assert SandboxMail.objects.count() == 4
    Pardon.objects.update(at=Now() - timedelta(minutes=1))
    Message.objects.filter(bounces__isnull=False).update(sent_at=Now() - timedelta(minutes=2))
    sent(30, "bad", back_as=BounceClass.HARD)
    (switch,) = judge()
    assert "30 of 33" in switch.note


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("target", "key"),
    [
        ("stream", "transactional:example.com"),
        ("domain", "example.com"),
        ("mailboxes", "transactional:example.com:gmail"),
    ],
)
def test_stopped_part_holds_its_mail_and_no_other(target: str, key: str) -> None:
    ours = SenderFactory(email="shop@Example.com")
    other = SenderFactory(email="shop@example.org")
    Switch.objects.create(target=target, key=key, reason="reputation")
    for sender in (ours, other):
        MessageFactory(
            sender=sender,
            contact__email="ada@gmail.com" if sender == ours else "bob@gmail.com",
            contact__email_normalized="ada@gmail.com" if sender == ours else "bob@gmail.com",
        )
    drain("transactional", budget=5)
    assert set(Message.objects.values_list("sender__email", "state")) == {
        ("shop@Example.com", "held"),
        ("shop@example.org", "sent"),
    }
    # The switch is still there: nothing is released by the sweep.
    assert recovery.release_held() == 0
    assert resume_sending(target, key) == 1


@pytest.mark.django_db
def test_mail_to_another_mailbox_provider_passes_a_stop_of_one() -> None:
    sender = SenderFactory(email="shop@example.com")
    key = "transactional:example.com:gmail"
    Switch.objects.create(target="mailboxes", key=key, reason="reputation")
    MessageFactory(sender=sender)
    drain("transactional", budget=5)
    assert Message.objects.get().state == "sent"


@pytest.mark.django_db
def test_slowed_campaign_sends_so_many_an_hour_and_the_rest_in_the_next() -> None:
    stop_sending("campaign", "c", per_hour=3)
    MessageFactory.create_batch(5, origin_campaign="c")
    MessageFactory.create_batch(2, origin_campaign="other")
    drain("transactional", budget=5)
    assert SandboxMail.objects.count() == 5
    assert Message.objects.filter(state="held", reason="slowed").count() == 2
    assert recovery.release_held() == 0
    # Lifted before the hour is over, it holds nothing back.
    assert resume_sending("campaign", "c") == 2
    drain("transactional", budget=5)
    assert SandboxMail.objects.count() == 7


@pytest.mark.django_db
def test_lifting_a_switch_that_was_thrown_by_hand_pardons_nothing() -> None:
    Switch.objects.create(target="campaign", key="c", reason="kill_switch")
    resume_sending("campaign", "c")
    assert not Pardon.objects.exists()


@pytest.mark.django_db
def test_breaker_leaves_alone_what_somebody_stopped() -> None:
    sent(30, "bad", back_as=BounceClass.HARD)
    stop_sending("campaign", "bad", note="by hand")
    judge()
    assert Switch.objects.get(target="campaign", key="bad").note == "by hand"
    assert Provider.objects.exists()


@pytest.mark.django_db
def test_what_is_released_by_a_pardon_counts_from_the_first_moment_on() -> None:
    sent(30, "bad", back_as=BounceClass.HARD)
    judge()
    resume_sending("campaign", "bad")
    assert judge() == []
    sent(200, "bad", back_as=BounceClass.HARD)
    judge()
    assert ("campaign", "bad", True) in switches()


@pytest.mark.django_db
def test_switch_that_two_have_read_is_lifted_once() -> None:
    plan = WarmupPlan.objects.get(key="careful")
    warmup = ProviderFactory(key="w").warmups.create(domain="example.com", plan=plan)
    stage = WarmupStage.objects.create(
        warmup=warmup, mailboxes="yahoo", stage=8, judged_on=database_time().date()
    )
    Switch.objects.create(
        target="mailboxes",
        key="marketing:example.com:yahoo",
        reason="reputation",
        until=Now() - timedelta(seconds=1),
    )
    read = {(switch.target, switch.key): switch for switch in Switch.objects.all()}
    reputation._let_go(read, {})
    reputation._let_go(read, {})
    stage.refresh_from_db()
    assert (stage.stage, Pardon.objects.get().pauses) == (6, 1)


@pytest.mark.django_db(transaction=True)
def test_judging_is_for_one_at_a_time() -> None:
    sent(30, "bad", back_as=BounceClass.HARD)
    with ThreadPoolExecutor(1) as thread, transaction.atomic():
        assert reputation._is_mine()
        assert thread.submit(_in_its_own_connection).result() == []
    assert [switch.key for switch in judge()] == ["bad"]


def _in_its_own_connection() -> list[Switch]:
    try:
        return judge()
    finally:
        connection.close()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("reason", "per_hour"),
    [("campaign_paused", None), ("kill_switch", 5), ("reputation", None)],
)
def test_breaker_that_read_before_overrules_nothing(reason: str, per_hour: int | None) -> None:
    Switch.objects.create(target="campaign", key="c", reason=reason, per_hour=per_hour, note="!")
    fault = Finding(Level.SLOW, "words", 10, False)
    assert reputation._enforce(("campaign", "c"), fault) is None
    switch = Switch.objects.get()
    assert (switch.reason, switch.per_hour, switch.note) == (reason, per_hour, "!")


@pytest.mark.django_db
def test_pause_of_a_sender_at_an_address_in_brackets_ends() -> None:
    key = "marketing:[2001:db8::1]:yahoo"
    Switch.objects.create(
        target="mailboxes", key=key, reason="reputation", until=Now() - timedelta(seconds=1)
    )
    judge()
    assert switches() == set()


@pytest.mark.django_db
def test_mail_that_is_put_off_for_hours_counts_in_the_last_one() -> None:
    sent(20, "c", back_as=BounceClass.THROTTLE)
    Bounce.objects.update(at=Now() - timedelta(hours=5), last_at=Now())
    judge()
    assert switches() == {("mailboxes", "marketing:example.com:yahoo", True)}

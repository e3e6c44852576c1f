"""The reputation breaker (R18): what is at fault stops, what is not goes on, held mail is held."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.db.models.functions import Now

from delivery.engine import drain
from delivery.models import Message, Pardon, SandboxMail, Switch
from delivery.rates import at_least
from delivery.reputation import Counts, fault, judge
from delivery.services import resume_sending
from tests.factories import MessageFactory, SenderFactory


@pytest.mark.parametrize(
    ("counts", "is_fault"),
    [
        (Counts(), False),
        (Counts(sent=10, bounces=10), False),  # too few to say
        (Counts(sent=30, bounces=25), True),
        (Counts(sent=500, bounces=25), False),  # 5 %, and it may be chance
        (Counts(sent=500, bounces=40), True),
        (Counts(sent=10_000, bounces=499), False),
        (Counts(sent=10_000, bounces=600), True),
        (Counts(sent=200, complaints=1), False),
        (Counts(sent=200, complaints=4), False),
        (Counts(sent=200, complaints=5), True),
        (Counts(sent=10_000, complaints=30), False),
        (Counts(sent=10_000, complaints=50), True),
    ],
)
def test_rate_is_a_fault_when_it_is_hardly_chance(counts: Counts, is_fault: bool) -> None:
    assert bool(fault(counts)) is is_fault


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
    assert at_least(count, total) == pytest.approx(bound, abs=1e-4)


@pytest.mark.parametrize(("count", "total"), [(11, 10), (-0, 5)])
def test_lower_bound_is_a_rate_whatever_is_asked(count: int, total: int) -> None:
    assert 0 <= at_least(count, total) <= 1


def sent(count: int, campaign: str, **fields: Any) -> None:
    defaults = {"state": "sent", "stream": "marketing", "sending_domain": "example.com"}
    MessageFactory.create_batch(
        count, **{**defaults, "sent_at": Now(), "origin_campaign": campaign, **fields}
    )


def switches() -> set[tuple[str, str, str]]:
    return set(Switch.objects.values_list("target", "key", "reason"))


@pytest.mark.django_db
def test_campaign_at_fault_stops_alone() -> None:
    sent(30, "bad", bounced_at=Now())
    sent(60, "good")
    assert [switch.key for switch in judge()] == ["bad"]
    assert switches() == {("campaign", "bad", "reputation")}
    assert "30 of 30" in Switch.objects.get().note
    assert judge() == []


@pytest.mark.django_db
def test_fault_of_no_campaign_in_particular_stops_the_stream_of_the_domain() -> None:
    for n in range(10):
        sent(4, f"c{n}", bounced_at=Now())
        sent(4, f"c{n}")
    sent(5, "c1", sending_domain="example.org")
    judge()
    assert switches() == {("stream", "marketing:example.com", "reputation")}


@pytest.mark.django_db
def test_what_happened_before_yesterday_is_over() -> None:
    sent(30, "bad", bounced_at=Now())
    Message.objects.update(sent_at=F("sent_at") - timedelta(hours=25))
    assert judge() == []


@pytest.mark.django_db
def test_r18_rest_of_the_campaign_is_held_and_leaves_when_somebody_says_so() -> None:
    sent(30, "bad", bounced_at=Now())
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
    sent(30, "bad", bounced_at=Now())
    assert len(judge()) == 1


@pytest.mark.django_db
def test_stopped_stream_of_a_domain_holds_its_mail_and_no_other() -> None:
    ours = SenderFactory(email="shop@Example.com")
    other = SenderFactory(email="shop@example.org")
    Switch.objects.create(target="stream", key="transactional:example.com", reason="reputation")
    MessageFactory(sender=ours)
    MessageFactory(sender=other)
    drain("transactional", budget=5)
    assert set(Message.objects.values_list("sender__email", "state")) == {
        ("shop@Example.com", "held"),
        ("shop@example.org", "sent"),
    }
    assert resume_sending("stream", "transactional:example.com") == 1


@pytest.mark.django_db
def test_lifting_a_switch_that_was_thrown_by_hand_pardons_nothing() -> None:
    Switch.objects.create(target="campaign", key="c", reason="kill_switch")
    resume_sending("campaign", "c")
    assert not Pardon.objects.exists()

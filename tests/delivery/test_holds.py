"""What is held comes free: in time, fairly, and at a cost that does not grow with what is held."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from delivery import recovery
from delivery.models import Message, Switch
from delivery.services import resume_sending
from delivery.states import STOP_REASONS, WAITING_REASONS, Reason
from tests.delivery.plans import most_read, multiply
from tests.factories import MessageFactory, ProviderFactory, SenderFactory

pytestmark = pytest.mark.django_db


def held(reason: str, count: int = 1, *, minutes: int = 1, **fields: Any) -> list[Message]:
    messages = MessageFactory.create_batch(count, state="held", reason=reason, **fields)
    Message.objects.filter(pk__in=[m.pk for m in messages]).update(
        due_at=Now() - timedelta(minutes=minutes)
    )
    return messages


def is_queued(message: Message) -> bool:
    message.refresh_from_db()
    return message.state == "queued"


@pytest.mark.parametrize(
    ("stream", "reason"), [("transactional", "no_provider"), ("marketing", "cap_reached")]
)
def test_backlog_that_waits_keeps_no_other_mail_waiting(
    monkeypatch: pytest.MonkeyPatch, stream: str, reason: str
) -> None:
    monkeypatch.setattr(recovery, "_LIMIT", 20)
    held("no_provider", 60, minutes=5, stream="marketing")
    (other,) = held(reason, stream=stream)
    assert recovery.release_held() == 21
    assert is_queued(other)


@pytest.mark.parametrize("reason", WAITING_REASONS)
@pytest.mark.parametrize("stream", ["transactional", "marketing"])
def test_whatever_waits_for_a_moment_is_released_then(stream: str, reason: str) -> None:
    held(reason, stream=stream)
    held(reason, stream=stream, minutes=-5)
    assert recovery.release_held() == 1


@pytest.mark.parametrize("reason", STOP_REASONS)
def test_whatever_nothing_stops_any_more_is_released(reason: str) -> None:
    held(reason, origin_campaign="a", stream="marketing")
    held(reason, origin_campaign="b", mailboxes="gmail", sender=SenderFactory())
    SenderFactory(is_default=True)
    assert recovery.release_held() == 2


def test_only_what_is_still_stopped_stays() -> None:
    eu = SenderFactory(provider=ProviderFactory(key="eu"), email="shop@eu.example")
    us = SenderFactory(provider=ProviderFactory(key="us"), email="shop@us.example", is_default=True)
    (paused,) = held(Reason.CAMPAIGN_PAUSED, origin_campaign="paused", sender=eu)
    (of_eu,) = held(Reason.KILL_SWITCH, origin_campaign="other", sender=eu)
    (default,) = held(Reason.KILL_SWITCH, origin_campaign="other", sender=None)
    (own,) = held(Reason.KILL_SWITCH, origin_campaign="other", sender=us)
    (gmail,) = held(Reason.REPUTATION, mailboxes="gmail", stream="marketing", sender=eu)
    (yahoo,) = held(Reason.REPUTATION, mailboxes="yahoo", stream="marketing", sender=eu)
    Switch.objects.create(target="campaign", key="paused", reason="campaign_paused")
    Switch.objects.create(target="provider", key="us", reason="kill_switch")
    Switch.objects.create(target="domain", key="us.example", reason="kill_switch", per_hour=5)
    Switch.objects.create(target="mailboxes", key="marketing:eu.example:gmail", reason="reputation")
    assert recovery.release_held() == 2
    assert is_queued(of_eu)
    assert is_queued(yahoo)
    assert resume_sending("provider", "us") == 2
    assert is_queued(default)
    assert is_queued(own)
    assert not is_queued(paused)
    assert not is_queued(gmail)


def test_what_is_free_leaves_by_so_many_at_a_time_and_transactional_mail_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery, "_FREED", 4)
    SenderFactory(is_default=True)
    held(Reason.KILL_SWITCH, 6, stream="marketing")
    held(Reason.KILL_SWITCH, 3, origin_campaign="z")
    assert recovery.release_held() == 4
    freed = Message.objects.filter(state="queued").values_list("stream", flat=True)
    assert sorted(freed) == ["marketing", *["transactional"] * 3]
    assert recovery.release_held() == 4
    assert recovery.release_held() == 1


def test_backlog_that_is_stopped_is_not_read() -> None:
    for campaign in ("a", "b", "c"):
        held(Reason.KILL_SWITCH, origin_campaign=campaign)
    held(Reason.NO_PROVIDER, minutes=-60)
    multiply(4_000)
    Switch.objects.create(target="everything", key="", reason="kill_switch")
    assert recovery.release_held() == 0
    assert most_read(recovery._STOPPED, {"limit": recovery._FREED}) < 100
    parameters = {
        "streams": ["transactional", "marketing"],
        "reasons": [reason.value for reason in WAITING_REASONS],
        "look": 10_000,
        "limit": 1_000,
    }
    assert most_read(recovery._WAITED, parameters) < 100

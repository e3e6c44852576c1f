"""Publishing, pausing, resuming and stopping campaigns."""

import pytest

from campaigns import plans, timers
from campaigns.engine import drain as process
from campaigns.exceptions import CannotPublish
from campaigns.models import Campaign, Enrollment, Wait
from campaigns.services import (
    pause_campaign,
    publish_campaign,
    replay_parked,
    resume_campaign,
    stop_campaign,
    waiting_counts,
)
from campaigns.states import StepKind
from delivery.engine import drain as deliver
from delivery.models import Message, SandboxMail
from delivery.states import Stream
from events.services import submit
from tests.factories import CampaignFactory, event_in

pytestmark = pytest.mark.django_db

DELAY = {"key": "pause", "kind": StepKind.DELAY, "wait_amount": 1}
MAIL = {"key": "mail", "kind": StepKind.SEND_EMAIL}


def post(event_id: str) -> None:
    submit([event_in(event_id)])
    process(budget=10)


def states() -> list[tuple[str, str]]:
    return list(Message.objects.values_list("state", "reason"))


def test_published_change_is_obeyed_by_the_next_event() -> None:
    campaign = CampaignFactory()
    post("e1")
    campaign.rules.update(condition={"path": "payload.plan", "op": "exists"})
    post("e2")
    assert Message.objects.count() == 2, "a draft changes nothing"
    assert publish_campaign(campaign, by=None).number == 2
    post("e3")
    assert Message.objects.count() == 2


def test_draft_that_is_incomplete_cannot_be_published() -> None:
    campaign = CampaignFactory(publish=False, topic=None, steps=[{**DELAY, "wait_amount": None}])
    with pytest.raises(CannotPublish) as caught:
        publish_campaign(campaign, by=None)
    assert [where for where, _ in caught.value.problems] == ["topic", "step pause"]
    assert Campaign.objects.get().published is None


def test_pause_holds_queued_mail_and_resume_sends_it() -> None:
    campaign = CampaignFactory()
    post("e1")
    assert pause_campaign(campaign)
    deliver(Stream.MARKETING, budget=5)
    assert states() == [("held", "campaign_paused")]
    assert resume_campaign(campaign)
    deliver(Stream.MARKETING, budget=5)
    assert states() == [("sent", "")]
    assert not resume_campaign(campaign)


@pytest.mark.parametrize("paused_first", [True, False])
def test_stop_skips_what_was_not_sent_and_lets_everybody_out(paused_first: bool) -> None:
    campaign = CampaignFactory(steps=[MAIL, DELAY, {**MAIL, "key": "second"}])
    post("e1")
    if paused_first:
        pause_campaign(campaign)
        deliver(Stream.MARKETING, budget=5)
    assert waiting_counts(campaign) == {"pause": 1}
    assert stop_campaign(campaign)
    timers.drain(budget=5)
    deliver(Stream.MARKETING, budget=5)
    assert states() == [("skipped", "campaign_stopped")]
    enrollment = Enrollment.objects.get()
    assert (enrollment.state, enrollment.exit_reason) == ("exited", "stopped")
    assert Wait.objects.count() == 0
    assert SandboxMail.objects.count() == 0
    assert not stop_campaign(campaign)


def test_parked_enrollment_goes_on_where_it_stood() -> None:
    campaign = CampaignFactory(steps=[DELAY, MAIL])
    post("e1")
    Enrollment.objects.update(state="parked", error="Traceback")
    assert replay_parked([Enrollment.objects.get().pk]) == 1
    assert waiting_counts(campaign) == {"pause": 1}
    timers.drain(budget=5)
    assert Message.objects.get().origin_step == "mail"


def test_failing_enrollment_is_put_off_and_then_parked_while_others_move_on() -> None:
    CampaignFactory(key="good", steps=[DELAY, MAIL])
    bad = CampaignFactory(key="bad", steps=[DELAY, MAIL])
    post("e1")
    snapshot = bad.published.snapshot
    snapshot["steps"][1]["template_id"] = 0
    type(bad.published).objects.filter(pk=bad.published.pk).update(snapshot=snapshot)
    plans._cache.clear()
    for _ in range(6):
        Enrollment.objects.filter(state="waiting").update(wake_at="2026-01-01T00:00:00Z")
        timers.drain(budget=5)
    assert dict(Enrollment.objects.values_list("campaign__key", "state")) == {
        "good": "finished",
        "bad": "parked",
    }
    assert "Traceback" in Enrollment.objects.get(campaign=bad).error
    assert Message.objects.count() == 1

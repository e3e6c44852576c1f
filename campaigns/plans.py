"""Loading published plans; parsed once per revision and process."""

from collections.abc import Iterable
from dataclasses import dataclass

from campaigns.models import Campaign, Enrollment, Revision
from campaigns.plan import Plan, StepPlan, build_plan
from campaigns.states import CampaignState

_CACHE_SIZE = 2_000
# Revisions never change, so an entry is never stale.
_cache: dict[int, Plan] = {}


@dataclass(frozen=True, slots=True)
class Listening:
    """A campaign that listens to an event type."""

    plan: Plan
    is_paused: bool


def listening_to(event_types: Iterable[str]) -> list[Listening]:
    """The published campaigns with a rule on one of these types, paused ones included. One
    query."""
    states = [CampaignState.LIVE, CampaignState.PAUSED]
    campaigns = Campaign.objects.filter(
        state__in=states, published__trigger_types__overlap=sorted(set(event_types))
    )
    return [
        Listening(current_plan(campaign), campaign.state == CampaignState.PAUSED)
        for campaign in campaigns.select_related("published").order_by("pk")
    ]


def current_plan(campaign: Campaign) -> Plan:
    """The published plan; `campaign.published` must be loaded."""
    revision = campaign.published
    assert revision is not None  # a campaign people are in has been published
    return plan_of(campaign, revision)


def plan_of(campaign: Campaign, revision: Revision) -> Plan:
    """The plan of one revision of the campaign."""
    plan = _cache.get(revision.pk)
    if plan is None:
        if len(_cache) >= _CACHE_SIZE:
            _cache.clear()
        plan = _cache[revision.pk] = build_plan(
            campaign_id=campaign.pk,
            campaign_key=campaign.key,
            revision_id=revision.pk,
            snapshot=revision.snapshot,
        )
    return plan


def surviving_step(enrollment: Enrollment, plan: Plan) -> StepPlan | None:
    """Where an enrollment goes on whose step was deleted or is of another kind now: the next
    step after it that still exists. `enrollment.revision` and `.campaign` must be loaded."""
    old = plan_of(enrollment.campaign, enrollment.revision)
    position = old.by_key.get(enrollment.step_key)
    if position is None:
        return None
    later = (plan.step(step.key) for step in old.steps[position + 1 :])
    return next((step for step in later if step is not None), None)

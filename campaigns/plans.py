"""Loading published plans; parsed once per revision and process."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import connection

from campaigns.models import Campaign, Enrollment, Revision
from campaigns.plan import Plan, StepPlan, build_plan
from campaigns.states import CampaignState

_LISTENING = f"""
    SELECT c.id, c.key, c.state, c.published_id
    FROM campaigns_campaign AS c JOIN campaigns_revision AS r ON r.id = c.published_id
    WHERE c.state IN ('{CampaignState.LIVE}', '{CampaignState.PAUSED}')
          AND r.trigger_types && %s::varchar[]
    ORDER BY c.id
"""  # noqa: S608 - literals of this project
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
    query, and one more for plans this process has not seen yet."""
    with connection.cursor() as cursor:
        cursor.execute(_LISTENING, [sorted(set(event_types))])
        rows = cursor.fetchall()
    plans = _plans({revision_id: (pk, key) for pk, key, _, revision_id in rows})
    return [
        Listening(plans[revision_id], state == CampaignState.PAUSED)
        for _, _, state, revision_id in rows
    ]


def _plans(wanted: Mapping[int, tuple[int, str]]) -> dict[int, Plan]:
    """Plans by revision; `wanted` has the campaign's id and key of each."""
    found = {pk: plan for pk in wanted if (plan := _cache.get(pk)) is not None}
    new = wanted.keys() - found.keys()
    if new:
        for revision_id, snapshot in Revision.objects.filter(pk__in=new).values_list(
            "pk", "snapshot"
        ):
            found[revision_id] = _kept(revision_id, *wanted[revision_id], snapshot)
    return found


def current_plan(campaign: Campaign) -> Plan:
    """The published plan; `campaign.published` must be loaded."""
    revision = campaign.published
    assert revision is not None  # a campaign people are in has been published
    return plan_of(campaign, revision)


def plan_of(campaign: Campaign, revision: Revision) -> Plan:
    """The plan of one revision of the campaign."""
    return _cache.get(revision.pk) or _kept(
        revision.pk, campaign.pk, campaign.key, revision.snapshot
    )


def _kept(revision_id: int, campaign_id: int, key: str, snapshot: Mapping[str, Any]) -> Plan:
    if len(_cache) >= _CACHE_SIZE:
        _cache.clear()
    plan = _cache[revision_id] = build_plan(
        campaign_id=campaign_id, campaign_key=key, revision_id=revision_id, snapshot=snapshot
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

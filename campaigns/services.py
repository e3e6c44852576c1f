"""What marketers do with campaigns: publish, pause, resume, stop."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Count, Max
from django.db.models.functions import Now

from campaigns.exceptions import CannotPublish
from campaigns.models import Campaign, Enrollment, Revision, Rule, Step
from campaigns.states import EXIT, CampaignState, EnrollmentState, StepKind
from common.bell import ring
from contacts.conditions import InvalidCondition, compile_condition
from delivery.models import Switch
from delivery.services import resume_sending, skip_held, stop_sending
from delivery.states import Reason, Stream

Problem = tuple[str, str]


def publish_campaign(campaign: Campaign, *, by: User | None) -> Revision:
    """Write the draft down as the next revision and let it run.

    People inside follow the new revision from their next step on. Raises `CannotPublish`. A
    draft goes live; a paused campaign stays paused; a stopped one cannot be published.
    """
    with transaction.atomic():
        locked = Campaign.objects.select_for_update().get(pk=campaign.pk)
        rules = list(locked.rules.select_related("event_type"))
        steps = list(locked.steps.select_related("template", "event_type"))
        problems = problems_of(locked, rules, steps)
        if problems:
            raise CannotPublish(problems)
        newest = locked.revisions.aggregate(newest=Max("number"))["newest"] or 0
        revision = Revision.objects.create(
            campaign=locked,
            number=newest + 1,
            snapshot=_snapshot(locked, rules, steps),
            trigger_types=sorted({rule.event_type.name for rule in rules}),
            published_by=by,
        )
        locked.published = revision
        if locked.state == CampaignState.DRAFT:
            locked.state = CampaignState.LIVE
        locked.save(update_fields=["published", "state"])
    campaign.refresh_from_db()
    return revision


def problems_of(campaign: Campaign, rules: Iterable[Rule], steps: Iterable[Step]) -> list[Problem]:
    """Everything that keeps the draft from being published."""
    rules, steps = list(rules), list(steps)
    problems: list[Problem] = []
    if campaign.state == CampaignState.STOPPED:
        problems.append(("campaign", "was stopped; copy it to start anew"))
    if campaign.stream == Stream.MARKETING and campaign.topic is None:
        problems.append(("topic", "marketing mail needs a topic people can unsubscribe from"))
    if not rules:
        problems.append(("rules", "nothing starts the campaign: add a rule"))
    if not steps:
        problems.append(("steps", "nothing happens in the campaign: add a step"))
    for rule in rules:
        try:
            compile_condition(rule.condition)
        except InvalidCondition as error:
            problems.append((f"rule {rule}", str(error)))
    keys = [step.key for step in steps]
    for position, step in enumerate(steps):
        found = _step_problems(step, keys[position + 1 :])
        problems.extend((f"step {step.key}", what) for what in found)
    return problems


def differs_from_published(campaign: Campaign) -> bool:
    """Whether publishing the draft would change anything. Uses what is prefetched."""
    if campaign.published is None:
        return True
    draft = _snapshot(campaign, list(campaign.rules.all()), list(campaign.steps.all()))
    return bool(draft != campaign.published.snapshot)


def pause_campaign(campaign: Campaign) -> bool:
    """live → paused: nobody enters, timers run on, mails are held. False if it was not live."""
    with transaction.atomic():
        if not _move(campaign, CampaignState.LIVE, CampaignState.PAUSED):
            return False
        target = Switch.Target.CAMPAIGN
        stop_sending(target, campaign.key, reason=Reason.CAMPAIGN_PAUSED, note=campaign.name)
    return True


def resume_campaign(campaign: Campaign) -> bool:
    """paused → live: held mails leave. False if it was not paused."""
    with transaction.atomic():
        if not _move(campaign, CampaignState.PAUSED, CampaignState.LIVE):
            return False
        resume_sending(Switch.Target.CAMPAIGN, campaign.key)
    ring(Stream.MARKETING.value, Stream.TRANSACTIONAL.value)
    return True


def stop_campaign(campaign: Campaign) -> bool:
    """live or paused → stopped, for good: everybody leaves, mails not yet sent are skipped."""
    with transaction.atomic():
        running = (CampaignState.LIVE, CampaignState.PAUSED)
        if not any(_move(campaign, state, CampaignState.STOPPED) for state in running):
            return False
        target = Switch.Target.CAMPAIGN
        stop_sending(target, campaign.key, reason=Reason.CAMPAIGN_STOPPED, note=campaign.name)
        skip_held(campaign.key)
        # Leaving is a move like any other, so the timers make it, under the people's locks.
        # Whoever is busy at this moment leaves when next woken.
        inside = campaign.enrollments.filter(state=EnrollmentState.WAITING)
        free = inside.select_for_update(skip_locked=True, of=("self",)).values("pk")
        Enrollment.objects.filter(pk__in=free).update(wake_at=Now())
    ring("timers")
    return True


def waiting_counts(campaign: Campaign) -> dict[str, int]:
    """How many people wait in each step, by step key."""
    inside = campaign.enrollments.filter(state=EnrollmentState.WAITING)
    return dict(inside.values_list("step_key").annotate(Count("pk")))


def replay_parked(ids: Iterable[UUID]) -> int:
    """parked → waiting, due now, where it stood; returns how many moved."""
    moved = Enrollment.objects.filter(pk__in=list(ids), state=EnrollmentState.PARKED).update(
        state=EnrollmentState.WAITING, wake_at=Now(), attempts=0, error=""
    )
    if moved:
        ring("timers")
    return moved


def _move(campaign: Campaign, old: CampaignState, new: CampaignState) -> bool:
    moved = Campaign.objects.filter(pk=campaign.pk, state=old).update(state=new)
    if moved:
        campaign.state = new
    return bool(moved)


def _step_problems(step: Step, later: list[str]) -> list[str]:
    problems: list[str] = []
    if step.kind == StepKind.SEND_EMAIL:
        if step.template is None:
            problems.append("needs a template")
        elif step.template.published_id is None:
            problems.append(f"its template “{step.template}” has no published version")
    if step.kind in (StepKind.DELAY, StepKind.WAIT_FOR_EVENT) and not step.wait_amount:
        problems.append("needs a time to wait")
    if step.kind == StepKind.WAIT_FOR_EVENT:
        if step.event_type is None:
            problems.append("needs an event type to wait for")
        for target in (step.on_event, step.on_timeout):
            if target and target != EXIT and target not in later:
                problems.append(f"“{target}” is not the key of a later step")
    return problems


def _snapshot(campaign: Campaign, rules: list[Rule], steps: list[Step]) -> dict[str, Any]:
    return {
        "stream": campaign.stream,
        "topic_id": campaign.topic_id,
        "sender_id": campaign.sender_id,
        "rules": [
            {
                "event_type": rule.event_type.name,
                "condition": rule.condition,
                "entry_key_path": rule.entry_key_path,
            }
            for rule in rules
        ],
        "steps": [
            {
                "key": step.key,
                "kind": step.kind,
                "template_id": step.template_id,
                "wait_amount": step.wait_amount or 0,
                "wait_unit": step.wait_unit,
                "event_type": step.event_type.name if step.event_type else "",
                "match_path": step.match_path,
                "on_event": step.on_event,
                "on_timeout": step.on_timeout,
            }
            for step in steps
        ],
    }

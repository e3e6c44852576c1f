"""Timers: enrollments whose delay or wait is over move on."""

import logging
import time
import traceback
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Case, F, Value, When
from django.db.models.functions import Now

from campaigns.batch import SeenEvents
from campaigns.models import Enrollment
from campaigns.plans import current_plan, surviving_step
from campaigns.states import CampaignState, EnrollmentState, ExitReason, StepKind
from campaigns.walk import Walker, Writes
from campaigns.writing import write
from common.bell import ring
from common.outages import is_outage
from common.postgres import database_time
from contacts.models import Contact

logger = logging.getLogger(__name__)

BATCH = 200
MAX_ATTEMPTS = 5


def drain(*, budget: float) -> bool:
    """Wake what is due for up to `budget` seconds; True if there may be more."""
    deadline = time.monotonic() + budget
    while time.monotonic() < deadline:
        if not wake_batch(limit=BATCH):
            return False
    return True


def wake_batch(*, limit: int) -> int:
    """Move up to `limit` due enrollments on; returns how many.

    A batch that fails is tried again one by one, and the one at fault is put off, in the end
    parked where it stands, from where a replay continues it. When the database was lost, none is:
    that is raised.
    """
    due = list(
        Enrollment.objects.due().order_by("wake_at", "pk").values_list("pk", flat=True)[:limit]
    )
    if not due:
        return 0
    try:
        return _wake(due)
    except Exception as error:
        if is_outage(error):
            raise
        # The end of the lane: each is tried alone.
        logger.warning("timer batch failed, one by one now", extra={"enrollments": len(due)})
        return sum(_wake_alone(enrollment_id) for enrollment_id in due)


def _wake_alone(enrollment_id: UUID) -> int:
    try:
        return _wake([enrollment_id])
    except Exception as error:
        if is_outage(error):
            raise
        # Any other fault is this enrollment's.
        logger.warning("enrollment failed", extra={"enrollment": str(enrollment_id)})
        _put_off(enrollment_id, "".join(traceback.format_exception(error))[-8_000:])
        return 1


def _put_off(enrollment_id: UUID, error: str) -> None:
    last = When(attempts__gte=MAX_ATTEMPTS - 1, then=Value(EnrollmentState.PARKED))
    Enrollment.objects.due().filter(pk=enrollment_id).update(
        state=Case(last, default=F("state")),
        attempts=F("attempts") + 1,
        wake_at=Now() + timedelta(minutes=1),
        error=error,
    )


def _wake(ids: Sequence[UUID]) -> int:
    with transaction.atomic():
        enrollments, contacts = _lock(ids)
        writes = _walk(enrollments)
        lanes = write(writes, contacts)
    ring(*lanes)
    return len(enrollments)


def _lock(ids: Sequence[UUID]) -> tuple[list[Enrollment], dict[int, Contact]]:
    """The people first, as the event engine does; those it holds at this moment come later."""
    people = Contact.objects.filter(enrollments__in=ids).order_by("pk")
    contacts = {
        c.pk: c for c in people.select_for_update(skip_locked=True, no_key=True, of=("self",))
    }
    rows = (
        Enrollment.objects.due()
        .filter(pk__in=ids, contact_id__in=contacts)
        .order_by("wake_at", "pk")
    )
    return list(rows.select_related("campaign__published", "revision")), contacts


def _walk(enrollments: Sequence[Enrollment]) -> Writes:
    seen = SeenEvents()
    plans = [current_plan(enrollment.campaign) for enrollment in enrollments]
    types = {step.event_type for plan in plans for step in plan.steps} - {""}
    if enrollments:
        earliest = min(enrollment.event_at for enrollment in enrollments)
        seen.load({e.contact_id for e in enrollments}, types, earliest)
    walker = Walker(database_time(), Writes(), seen.since)
    for enrollment, plan in zip(enrollments, plans, strict=True):
        step = plan.step(enrollment.step_key)
        if enrollment.campaign.state == CampaignState.STOPPED:
            walker.exit(enrollment, ExitReason.STOPPED)
        elif step is None or step.kind not in (StepKind.DELAY, StepKind.WAIT_FOR_EVENT):
            walker.resume_at(enrollment, plan, surviving_step(enrollment, plan))
        else:
            walker.time_is_up(enrollment, plan, step)
    return walker.writes

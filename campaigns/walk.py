"""Moving people through campaigns: pure, in memory. What is to be written is collected in
`Writes`; what it needs to know is loaded before.

An enrollment moves forward until a step makes it wait or the campaign ends. A step runs at most
once per enrollment, because targets only lead forward.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from campaigns.models import Enrollment, StepRun, Wait
from campaigns.plan import Plan, StepPlan
from campaigns.states import EXIT, EnrollmentState, ExitReason, StepKind
from common.ids import shortened, uuid7
from common.rows import new_row
from contacts.conditions import lookup

Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Mail:
    """A message to be made: which enrollment's step, with which template."""

    message_id: UUID
    enrollment: Enrollment
    plan: Plan
    step: StepPlan


@dataclass(slots=True)
class Writes:
    """Everything a batch is going to write."""

    entered: dict[UUID, Enrollment] = field(default_factory=dict)
    moved: dict[UUID, tuple[int, Enrollment]] = field(default_factory=dict)
    """Enrollments that existed before, with the `seq` they had."""
    step_runs: list[StepRun] = field(default_factory=list)
    mails: list[Mail] = field(default_factory=list)
    waits: dict[UUID, Wait] = field(default_factory=dict)
    """Waits to insert, by enrollment."""
    ended_waits: set[UUID] = field(default_factory=set)
    """Enrollments whose stored wait is over."""

    def merge(self, other: "Writes") -> None:
        """Take over what another collected."""
        self.entered |= other.entered
        self.moved |= other.moved
        self.step_runs += other.step_runs
        self.mails += other.mails
        self.waits |= other.waits
        self.ended_waits |= other.ended_waits


@dataclass(frozen=True, slots=True)
class Walker:
    """Advances enrollments at one moment.

    `seen_before(contact_id, event_type, since)` gives the facts of the contact's already
    processed events of a type, so that an event which overtook the one it answers is not missed.
    """

    now: datetime
    writes: Writes
    seen_before: Callable[[int, str, datetime], list[Facts]]

    def enter(self, enrollment: Enrollment, plan: Plan) -> None:
        """Start a new enrollment at the first step."""
        self.writes.entered[enrollment.pk] = enrollment
        self._run(enrollment, plan, plan.first())

    def event_arrived(self, enrollment: Enrollment, plan: Plan, step: StepPlan) -> None:
        """Continue an enrollment whose awaited event came."""
        self._leave_wait(enrollment, plan, step, "event", step.on_event)

    def time_is_up(self, enrollment: Enrollment, plan: Plan, step: StepPlan) -> None:
        """Continue an enrollment whose delay or wait is over."""
        waited = step.kind == StepKind.WAIT_FOR_EVENT
        target = step.on_timeout if waited else ""
        self._leave_wait(enrollment, plan, step, "timeout" if waited else "elapsed", target)

    def resume_at(self, enrollment: Enrollment, plan: Plan, step: StepPlan | None) -> None:
        """Continue an enrollment whose step was deleted while it waited there."""
        self._note_move(enrollment)
        self.writes.ended_waits.add(enrollment.pk)
        self._run(enrollment, plan, step)

    def exit(self, enrollment: Enrollment, reason: ExitReason) -> None:
        """Take an enrollment out of its campaign."""
        self._note_move(enrollment)
        self.writes.ended_waits.add(enrollment.pk)
        self._end(enrollment, EnrollmentState.EXITED, reason)

    def _leave_wait(
        self, enrollment: Enrollment, plan: Plan, step: StepPlan, outcome: str, target: str
    ) -> None:
        self._note_move(enrollment)
        # A wait that this very batch wrote down is just not written.
        if self.writes.waits.pop(enrollment.pk, None) is None:
            self.writes.ended_waits.add(enrollment.pk)
        self._record(enrollment, step, outcome)
        self._proceed(enrollment, plan, step, target)

    def _proceed(
        self, enrollment: Enrollment, plan: Plan, step: StepPlan, target: str = ""
    ) -> None:
        if target == EXIT:
            self._end(enrollment, EnrollmentState.EXITED, ExitReason.STEP)
        else:
            self._run(enrollment, plan, plan.after(step, target))

    def _run(self, enrollment: Enrollment, plan: Plan, step: StepPlan | None) -> None:
        enrollment.revision_id = plan.revision_id
        if step is None:
            self._end(enrollment, EnrollmentState.FINISHED)
        elif step.kind == StepKind.SEND_EMAIL:
            self._send(enrollment, plan, step)
            self._proceed(enrollment, plan, step)
        elif step.kind == StepKind.EXIT:
            self._record(enrollment, step, "exit")
            self._end(enrollment, EnrollmentState.EXITED, ExitReason.STEP)
        elif step.kind == StepKind.WAIT_FOR_EVENT and self._has_arrived(enrollment, step):
            self._record(enrollment, step, "event")
            self._proceed(enrollment, plan, step, step.on_event)
        else:
            self._park(enrollment, step)

    def _send(self, enrollment: Enrollment, plan: Plan, step: StepPlan) -> None:
        mail = Mail(uuid7(), enrollment, plan, step)
        self.writes.mails.append(mail)
        self._record(enrollment, step, "queued", message_id=mail.message_id)

    def _park(self, enrollment: Enrollment, step: StepPlan) -> None:
        enrollment.state = EnrollmentState.WAITING
        enrollment.step_key = step.key
        enrollment.wake_at = self.now + timedelta(seconds=step.wait_seconds)
        if step.kind == StepKind.WAIT_FOR_EVENT:
            self.writes.waits[enrollment.pk] = Wait(
                enrollment=enrollment,
                contact_id=enrollment.contact_id,
                event_type=step.event_type,
                match_path=step.match_path,
                match_value=match_value(enrollment.context, step.match_path),
            )

    def _has_arrived(self, enrollment: Enrollment, step: StepPlan) -> bool:
        wanted = match_value(enrollment.context, step.match_path)
        events = self.seen_before(enrollment.contact_id, step.event_type, enrollment.event_at)
        return any(
            is_awaited(facts, match_path=step.match_path, match_value=wanted) for facts in events
        )

    def _record(
        self,
        enrollment: Enrollment,
        step: StepPlan,
        outcome: str,
        message_id: UUID | None = None,
    ) -> None:
        enrollment.seq += 1
        self.writes.step_runs.append(
            new_row(
                StepRun,
                enrollment_id=enrollment.pk,
                seq=enrollment.seq,
                step_key=step.key,
                kind=step.kind,
                outcome=outcome,
                message_id=message_id,
            )
        )

    def _end(
        self, enrollment: Enrollment, state: EnrollmentState, reason: ExitReason | str = ""
    ) -> None:
        enrollment.state, enrollment.exit_reason = state, reason
        enrollment.step_key, enrollment.wake_at = "", None

    def _note_move(self, enrollment: Enrollment) -> None:
        if enrollment.pk in self.writes.entered:
            return
        self.writes.moved.setdefault(enrollment.pk, (enrollment.seq, enrollment))
        enrollment.attempts, enrollment.error = 0, ""


def match_value(facts: Facts, path: str) -> str:
    """The value two events must share, as text; empty when nothing has to match."""
    value = lookup(facts, path) if path else None
    return "" if value is None else shortened(str(value), 200)


def is_awaited(facts: Facts, *, match_path: str, match_value: str) -> bool:
    """Whether an event of the right type is the one that is waited for.

    An entry event without the value waits in vain: matching everything would answer one cart
    with the order of another.
    """
    if not match_path:
        return True
    value = lookup(facts, match_path)
    return value is not None and match_value != "" and shortened(str(value), 200) == match_value

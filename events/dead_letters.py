"""Dead letters among events: those the engine gave up on, and those that were not let in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Collate, Now

from common.bell import ring
from events.admission import admit
from events.directory import rules
from events.models import Event, Rejection
from events.native import parse_event
from events.services import submit
from events.states import EventState, IgnoredReason, RefusalCode, RejectionState
from events.wire import EventIn, Outcome, Problem, Recorded, Refusal

BATCH = 200

# The order in which the intake writes them: two that go through the same rows in different orders
# would each wait for the other. Its sorting is Python's, by code point.
_IN_ORDER = [Collate(F(name), "C") for name in ("source", "event_id", "code")]


@dataclass(frozen=True, slots=True)
class Replay:
    """How many refused events are in the inbox now, and how many were refused again."""

    taken: int
    refused: int

    def __add__(self, other: "Replay") -> "Replay":
        return Replay(self.taken + other.taken, self.refused + other.refused)


def dead_events(
    *, type: str = "", source: str = "", since: datetime | None = None
) -> QuerySet[Event]:
    """The dead letters of the engine, of one type, source or time of arrival."""
    rows = Event.objects.filter(state=EventState.DEAD, **_given(type=type, source=source))
    return rows.filter(received_at__gte=since) if since else rows


def refused_events(
    *, type: str = "", source: str = "", code: str = "", since: datetime | None = None
) -> QuerySet[Rejection]:
    """What was refused and can be read again, of one type, source, code or last refusal."""
    rows = Rejection.objects.filter(
        state=RejectionState.OPEN,
        body__isnull=False,
        **_given(type=type, source=source, code=code),
    )
    return rows.filter(last_at__gte=since) if since else rows


def _given(**filters: str) -> dict[str, str]:
    return {name: value for name, value in filters.items() if value}


def in_batches(
    rows: "QuerySet[Event] | QuerySet[Rejection]", *, most: int | None = None
) -> Iterator[list[int]]:
    """The primary keys, oldest first, `BATCH` at a time, at most `most` of them. Each row comes
    once, also when what is done about it leaves it among them."""
    last, left = 0, most
    while left is None or left > 0:
        size = BATCH if left is None else min(BATCH, left)
        ids = list(rows.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:size])
        if not ids:
            return
        yield ids
        last = ids[-1]
        left = None if left is None else left - len(ids)


def replay_dead(ids: Sequence[int]) -> int:
    """dead → pending with another five attempts; returns how many moved. What an event had
    already done is not done twice."""
    revived = Event.objects.filter(pk__in=ids, state=EventState.DEAD).update(
        state=EventState.PENDING,
        attempts=0,
        error="",
        due_at=Now(),
        claimed_until=None,
        lease_owner="",
    )
    if revived:
        ring("events")
    return revived


def discard_dead(ids: Sequence[int], note: str) -> int:
    """dead → ignored, for good, with somebody's reason; returns how many moved. The traceback
    stays."""
    return Event.objects.filter(pk__in=ids, state=EventState.DEAD).update(
        state=EventState.IGNORED,
        reason=IgnoredReason.DISCARDED,
        note=note,
        processed_at=Now(),
    )


def replay_rejections(ids: Sequence[int]) -> Replay:
    """open → replayed, for those that today's rules let in; the others stay open with what is
    wrong with them now. Those without a body are left alone.

    `BATCH` rows are one transaction: an event is in the inbox when its row says so, whoever else
    replays or discards it at the same time.
    """
    total = Replay(0, 0)
    for start in range(0, len(ids), BATCH):
        total += _replay_batch(ids[start : start + BATCH])
    return total


def discard_rejections(ids: Sequence[int], note: str) -> int:
    """open → discarded, with somebody's reason; returns how many moved."""
    return Rejection.objects.filter(pk__in=ids, state=RejectionState.OPEN).update(
        state=RejectionState.DISCARDED, note=note
    )


@transaction.atomic
def _replay_batch(ids: Sequence[int]) -> Replay:
    chosen = refused_events().filter(pk__in=ids).order_by(*_IN_ORDER)
    rows = list(chosen.select_for_update())
    outcomes = _let_in(rows)
    problems = [_problems(outcome) for outcome in outcomes]
    taken = [row.pk for row, wrong in zip(rows, problems, strict=True) if not wrong]
    Rejection.objects.filter(pk__in=taken).update(state=RejectionState.REPLAYED)
    foreign = [row.pk for row, outcome in zip(rows, outcomes, strict=True) if _is_foreign(outcome)]
    # What may not be held here any more is not held here any longer.
    Rejection.objects.filter(pk__in=foreign).update(body=None, type="")
    _write_problems(rows, problems)
    return Replay(len(taken), len(rows) - len(taken))


def _let_in(rows: Sequence[Rejection]) -> list[Outcome]:
    read = [parse_event(row.body, source=row.source, received_at=row.first_at) for row in rows]
    items = admit(read, rules.fresh(None))
    # What is refused again is remembered already.
    kept = iter(submit([item for item in items if isinstance(item, EventIn)]))
    return [item if isinstance(item, Refusal) else next(kept) for item in items]


def _problems(outcome: Outcome) -> Sequence[Problem]:
    """What keeps an event out; nothing when it is in, whoever put it there."""
    if isinstance(outcome, Refusal):
        return outcome.problems
    if outcome is Recorded.CONFLICT:
        return [Problem("event_id", "is known with another body")]
    return ()


def _write_problems(rows: Sequence[Rejection], problems: Sequence[Sequence[Problem]]) -> None:
    refused = []
    for row, wrong in zip(rows, problems, strict=True):
        if wrong:
            row.problems = [problem.as_detail() for problem in wrong]
            refused.append(row)
    Rejection.objects.bulk_update(refused, ["problems"])


def _is_foreign(outcome: Outcome) -> bool:
    return isinstance(outcome, Refusal) and outcome.code is RefusalCode.RESIDENCY

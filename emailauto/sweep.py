"""The sweep: rings every lane that has due work, and has delivery put right what workers left.

It is why a lost, doubled or flushed broker changes latency only. A step that fails keeps neither
the others nor the bells from their work; it ends in the log, and in a heartbeat of its own that
stays out, so that monitoring shows it.
"""

from collections.abc import Callable

from django.db.models.functions import Now

from campaigns.models import Enrollment
from common.bell import ring
from common.steps import run_each
from delivery.models import Message, Visit
from delivery.recovery import recover
from delivery.reputation import judge_now_and_then
from delivery.states import Stream
from delivery.warmup import look_back
from events.inbox import bury_killers
from events.models import Event
from monitoring.services import REPAIRS, SWEEP, beat
from webhooks.answers import due_answers
from webhooks.models import Receipt
from webhooks.outgoing.transitions import ready_endpoints


def _has_events() -> bool:
    return Event.objects.due().exists()


def _has_timers() -> bool:
    return Enrollment.objects.due().exists()


def _has_transactional() -> bool:
    return Message.objects.due(Stream.TRANSACTIONAL).exists()


def _has_marketing() -> bool:
    return Message.objects.due(Stream.MARKETING).exists()


def _has_receipts() -> bool:
    return Receipt.objects.has_due()


def _has_answers() -> bool:
    return due_answers().exists()


def _has_visits() -> bool:
    return Visit.objects.filter(actor="", due_at__lte=Now()).exists()


def _has_outgoing() -> bool:
    return bool(ready_endpoints())


# What each lane's workers would find. Each question has an index of what is due, and costs what is
# due: it is asked every few seconds, of tables that only grow.
_DUE: tuple[tuple[str, Callable[[], bool]], ...] = (
    ("events", _has_events),
    ("timers", _has_timers),
    ("transactional", _has_transactional),
    ("marketing", _has_marketing),
    ("feedback", _has_receipts),
    ("feedback", _has_answers),
    ("feedback", _has_visits),
    ("outgoing", _has_outgoing),
)


def sweep() -> list[str]:
    """Repair, ring, and leave a sign of life; returns the lanes that were rung. Raises
    `ExceptionGroup` when a step failed, after everything else."""
    steps: tuple[Callable[[], object], ...] = (recover, bury_killers, look_back, judge_now_and_then)
    _, errors = run_each(*steps)
    lanes, unasked = _lanes_to_ring()
    ring(*lanes)
    beat(SWEEP)
    if errors or unasked:
        raise ExceptionGroup("the sweep is not complete", [*errors, *unasked])
    beat(REPAIRS)
    return lanes


def _lanes_to_ring() -> tuple[list[str], list[Exception]]:
    """The lanes with work, and the questions that could not be answered. What is not known to have
    none is rung: a bell too many is a look at an empty table, one too few is work that lies."""
    lanes: dict[str, None] = {}
    unasked: list[Exception] = []
    for lane, has_work in _DUE:
        found, failed = run_each(has_work)
        if failed or any(found):
            lanes[lane] = None
        unasked += failed
    return list(lanes), unasked

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
from delivery.models import Bounce, Message, Visit
from delivery.recovery import recover
from delivery.reputation import judge_now_and_then
from delivery.states import Stream
from delivery.warmup import look_back
from events.inbox import bury_killers
from events.models import Event
from monitoring.services import REPAIRS, SWEEP, beat
from webhooks.models import OutgoingDelivery, Receipt

_DUE: dict[str, Callable[[], bool]] = {
    "events": lambda: Event.objects.due().exists(),
    "timers": lambda: Enrollment.objects.due().exists(),
    "transactional": lambda: Message.objects.due(Stream.TRANSACTIONAL).exists(),
    "marketing": lambda: Message.objects.due(Stream.MARKETING).exists(),
    "feedback": lambda: (
        Receipt.objects.due().exists()
        or Bounce.objects.filter(is_applied=False).exists()
        or Visit.objects.filter(actor="", due_at__lte=Now()).exists()
    ),
    "outgoing": lambda: OutgoingDelivery.objects.due().exists(),
}


def sweep() -> list[str]:
    """Repair, ring, and leave a sign of life; returns the lanes that were rung. Raises
    `ExceptionGroup` when a step failed, after everything else."""
    steps: tuple[Callable[[], object], ...] = (recover, bury_killers, look_back, judge_now_and_then)
    _, errors = run_each(*steps)
    lanes = [lane for lane, has_work in _DUE.items() if has_work()]
    ring(*lanes)
    beat(SWEEP)
    if errors:
        raise ExceptionGroup("the sweep is not complete", errors)
    beat(REPAIRS)
    return lanes

"""The sweep: rings every lane that has due work, and has delivery put right what workers left.

It is why a lost, doubled or flushed broker changes latency only.
"""

from collections.abc import Callable

from campaigns.models import Enrollment
from common.bell import ring
from delivery.models import Bounce, Message
from delivery.recovery import recover
from delivery.reputation import judge_now_and_then
from delivery.states import Stream
from delivery.warmup import look_back
from events.inbox import bury_killers
from events.models import Event
from monitoring.services import SWEEP, beat
from webhooks.models import Receipt

_DUE: dict[str, Callable[[], bool]] = {
    "events": lambda: Event.objects.due().exists(),
    "timers": lambda: Enrollment.objects.due().exists(),
    "transactional": lambda: Message.objects.due(Stream.TRANSACTIONAL).exists(),
    "marketing": lambda: Message.objects.due(Stream.MARKETING).exists(),
    "feedback": lambda: (
        Receipt.objects.due().exists() or Bounce.objects.filter(is_applied=False).exists()
    ),
}


def sweep() -> list[str]:
    """Repair, ring, and leave a sign of life; returns the lanes that were rung."""
    recover()
    bury_killers()
    look_back()
    judge_now_and_then()
    lanes = [lane for lane, has_work in _DUE.items() if has_work()]
    ring(*lanes)
    beat(SWEEP)
    return lanes

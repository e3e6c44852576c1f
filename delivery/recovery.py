"""What the sweep puts right: leases whose workers died, doubts that can be cleared, and holds
whose cause is gone. Everything here may run twice at once."""

import logging
from collections import defaultdict
from collections.abc import Iterable
from uuid import UUID

from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from common.bell import ring
from delivery import transitions
from delivery.journal import revoke
from delivery.models import Message, SandboxMail
from delivery.recording import settled
from delivery.routes import SANDBOX
from delivery.states import MessageState, Reason, Stream
from delivery.transitions import Settled
from delivery.verdicts import Outcome, Verdict

logger = logging.getLogger(__name__)

_LIMIT = 1_000
MAX_CRASHES = 3


def recover() -> None:
    """Run every repair once and wake the lanes that got work."""
    if recover_claimed() + recover_dispatching() + clear_doubts() + release_held():
        ring(Stream.TRANSACTIONAL.value, Stream.MARKETING.value)


def recover_claimed() -> int:
    """claimed with an expired lease → queued: nothing was handed over. A message on which
    workers keep dying ends in the dead letters."""
    expired = Message.objects.filter(state=MessageState.CLAIMED, lease_until__lt=Now())
    freed = {"lease_owner": "", "lease_until": None, "crashes": F("crashes") + 1}
    dead = expired.filter(crashes__gte=MAX_CRASHES - 1).update(
        state=MessageState.DEAD, reason=Reason.CRASHED, **freed
    )
    queued = expired.update(state=MessageState.QUEUED, **freed)
    if dead or queued:
        logger.warning("claims recovered", extra={"queued": queued, "dead": dead})
    return queued


def recover_dispatching() -> int:
    """dispatching with an expired lease → what its journal proves, else unknown.

    Returns how many may be sent now.
    """
    with transaction.atomic():
        rows = Message.objects.filter(state=MessageState.DISPATCHING, lease_until__lt=Now())
        expired = list(rows.order_by("pk").select_for_update(skip_locked=True)[:_LIMIT])
        if not expired:
            return 0
        fates = _fates(expired)
        moves = [_move(message, fates[message.pk]) for message in expired]
        transitions.settle(moves)
    queued = sum(move.state == MessageState.QUEUED for move in moves)
    unknown = sum(move.state == MessageState.UNKNOWN for move in moves)
    logger.warning("hand-overs recovered", extra={"queued": queued, "unknown": unknown})
    return queued


def clear_doubts() -> int:
    """unknown → sent or queued, for messages that went to the sandbox, which knows what it took.

    What counts is the route a message was handed over through, not today's. The sandbox takes
    nothing from a message that is no longer `dispatching`, so its "no" is final.
    Returns how many may be sent now.
    """
    unknown = Message.objects.filter(state=MessageState.UNKNOWN, route=SANDBOX)
    messages = list(unknown.order_by("pk")[:_LIMIT])
    if not messages:
        return 0
    taken = SandboxMail.objects.filter(message_id__in=[message.pk for message in messages])
    accepted = set(taken.values_list("message_id", flat=True))
    moves = [_proven(message, message.pk in accepted) for message in messages]
    transitions.settle(moves)
    return sum(move.state == MessageState.QUEUED for move in moves)


def release_held() -> int:
    """held by a switch that is no longer there → queued. Also heals a hold that was decided in
    the moment its switch was lifted."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE delivery_message AS m SET state = 'queued', reason = '', detail = ''
            WHERE m.state = 'held' AND m.reason IN ('kill_switch', 'campaign_paused')
              AND NOT EXISTS (
                SELECT 1 FROM delivery_switch AS s
                LEFT JOIN delivery_sender AS x
                  ON x.id = m.sender_id OR (m.sender_id IS NULL AND x.is_default)
                LEFT JOIN delivery_provider AS p ON p.id = x.provider_id
                WHERE s.target = 'everything'
                   OR (s.target = 'campaign' AND s.key = m.origin_campaign)
                   OR (s.target = 'provider' AND s.key = p.key))
            """
        )
        released: int = cursor.rowcount
    return released


def _fates(expired: Iterable[Message]) -> dict[UUID, Verdict | None]:
    batches: dict[UUID, list[UUID]] = defaultdict(list)
    for message in expired:
        assert message.handover_id is not None  # set by the move to dispatching
        batches[message.handover_id].append(message.pk)
    fates: dict[UUID, Verdict | None] = {}
    for handover_id, messages in batches.items():
        fates |= revoke(handover_id, messages)
    return fates


def _move(message: Message, fate: Verdict | None) -> Settled:
    if fate is None:
        return Settled(message.pk, message.attempts, MessageState.QUEUED)
    return settled(message.pk, message.attempts, fate, failures=message.failures)


def _proven(message: Message, accepted: bool) -> Settled:
    if accepted:
        return settled(
            message.pk, message.attempts, Verdict(Outcome.ACCEPTED), failures=message.failures
        )
    return Settled(message.pk, message.attempts, MessageState.QUEUED)

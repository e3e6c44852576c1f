"""What the sweep puts right: leases whose workers died, doubts that can be cleared, and holds
whose cause is gone. Everything here may run twice at once."""

import logging
from collections import Counter
from uuid import UUID

from django.db import DataError, connection, transaction
from django.db.models.functions import Now

from common.bell import ring
from delivery import transitions
from delivery.journal import revoke
from delivery.models import Message, SandboxMail
from delivery.recording import settled
from delivery.routes import SANDBOX
from delivery.states import WAITING_REASONS, MessageState, Stream
from delivery.transitions import Settled
from delivery.verdicts import Outcome, Verdict

logger = logging.getLogger(__name__)

_LIMIT = 1_000


def recover() -> None:
    """Run every repair once and wake the lanes that got work."""
    if recover_claimed() + recover_dispatching() + clear_doubts() + release_held():
        ring(Stream.TRANSACTIONAL.value, Stream.MARKETING.value)


def recover_claimed() -> int:
    """claimed with an expired lease → queued: nothing was handed over. A message on which
    workers keep dying ends in the dead letters. Returns how many may be sent now."""
    states = transitions.recover_claimed()
    if states:
        logger.warning("claims recovered", extra=dict(states))
    return states[MessageState.QUEUED]


def recover_dispatching() -> int:
    """dispatching with an expired lease → what its journal proves, else unknown.

    Batch by batch: one that cannot be settled keeps no other from it. Returns how many may be
    sent now.
    """
    states: Counter[str] = Counter()
    for handover_id in _expired_batches():
        try:
            states.update(move.state for move in _recover_batch(handover_id))
        except (DataError, ValueError):
            logger.exception("batch cannot be recovered", extra={"handover": str(handover_id)})
    queued = states[MessageState.QUEUED] + states[MessageState.RETRY]
    if states:
        unknown = states[MessageState.UNKNOWN]
        logger.warning("hand-overs recovered", extra={"queued": queued, "unknown": unknown})
    return queued


def _expired_batches() -> list[UUID]:
    expired = Message.objects.filter(state=MessageState.DISPATCHING, lease_until__lt=Now())
    batches = expired.exclude(handover_id=None).order_by("handover_id").distinct()
    return [pk for pk in batches.values_list("handover_id", flat=True)[:_LIMIT] if pk is not None]


@transaction.atomic
def _recover_batch(handover_id: UUID) -> list[Settled]:
    expired = Message.objects.filter(
        state=MessageState.DISPATCHING, lease_until__lt=Now(), handover_id=handover_id
    )
    messages = list(expired.order_by("pk").select_for_update(skip_locked=True))
    if not messages:
        return []
    fates = revoke(handover_id, [message.pk for message in messages])
    moves = [_move(message, fates[message.pk]) for message in messages]
    transitions.settle(moves)
    return moves


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
    """held by a switch that is no longer there, or until a moment that has come → queued; of the
    latter so many at a time that those who cannot leave yet do no harm, the most engaged first,
    which is what a warm-up wants. Also heals a hold that was
    decided in the moment its switch was lifted."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE delivery_message AS m SET state = 'queued', reason = '', detail = ''
            WHERE m.state = 'held'
              AND (m.id IN (
                SELECT w.id FROM delivery_message AS w
                JOIN contacts_contact AS c ON c.id = w.contact_id
                WHERE w.state = 'held' AND w.due_at <= statement_timestamp()
                  AND w.reason = ANY(%s)
                ORDER BY date_trunc('minute', w.due_at), c.engaged_at DESC NULLS LAST, w.due_at
                LIMIT %s)
                OR m.reason IN ('kill_switch', 'campaign_paused', 'reputation') AND NOT EXISTS (
                SELECT 1 FROM delivery_switch AS s
                LEFT JOIN delivery_sender AS x
                  ON x.id = m.sender_id OR (m.sender_id IS NULL AND x.is_default)
                LEFT JOIN delivery_provider AS p ON p.id = x.provider_id
                CROSS JOIN LATERAL (SELECT lower(split_part(x.email, '@', 2))) AS d (domain)
                WHERE s.per_hour IS NULL AND (s.target, s.key) IN (
                    ('everything', ''), ('campaign', m.origin_campaign), ('provider', p.key),
                    ('domain', d.domain), ('stream', m.stream || ':' || d.domain),
                    ('mailboxes', m.stream || ':' || d.domain || ':' || m.mailboxes))))
            """,
            [list(WAITING_REASONS), _LIMIT],
        )
        released: int = cursor.rowcount
    return released


def _move(message: Message, fate: Verdict | None) -> Settled:
    if fate is None:
        return _never_begun(message)
    return settled(message, message.attempts, fate)


def _proven(message: Message, accepted: bool) -> Settled:
    if accepted:
        return settled(message, message.attempts, Verdict(Outcome.ACCEPTED))
    return _never_begun(message)


def _never_begun(message: Message) -> Settled:
    in_doubt = message.replay_until is not None
    state = MessageState.RETRY if in_doubt else MessageState.QUEUED
    return Settled(message.pk, message.attempts, state, never_begun=True)

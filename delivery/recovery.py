"""What the sweep puts right: leases whose workers died, doubts that can be cleared, and holds
whose cause is gone. Everything here may run twice at once."""

import logging
from collections import Counter
from typing import Any
from uuid import UUID

from django.db import DataError, connection, transaction
from django.db.models.functions import Now

from common.bell import ring
from common.steps import run_each
from delivery import transitions
from delivery.journal import revoke
from delivery.models import Message, SandboxMail
from delivery.recording import never_begun, settled
from delivery.routes import SANDBOX
from delivery.states import WAITING_REASONS, MessageState, Stream
from delivery.transitions import Settled
from delivery.verdicts import Outcome, Verdict

logger = logging.getLogger(__name__)

_LIMIT = 1_000
# Times the limit: among so many of the oldest the most engaged are looked for.
_LOOK = 10
# What nothing stops any more leaves as fast as it can.
_FREED = 20_000


def recover() -> None:
    """Run every repair once and wake the lanes that got work; raises `ExceptionGroup` when some
    failed, after the others."""
    moved, errors = run_each(recover_claimed, recover_dispatching, clear_doubts, release_held)
    if sum(moved):
        ring(Stream.TRANSACTIONAL.value, Stream.MARKETING.value)
    if errors:
        raise ExceptionGroup("not everything could be repaired", errors)


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
    """held until a moment that has come, or by a switch that is no longer there → queued. Also
    heals a hold that was decided in the moment its switch was lifted. What it costs depends on
    what is released, not on what is held."""
    return _release_waited() + _release_stopped()


# So many of each stream and reason at a time that those who cannot leave yet do no harm, and none
# waits behind what another one waits for. The most engaged first, which is what a warm-up wants.
_WAITED = """
    WITH due AS MATERIALIZED (
        SELECT w.id
        FROM unnest(%(streams)s::text[]) AS s (stream), unnest(%(reasons)s::text[]) AS r (reason)
        CROSS JOIN LATERAL (
            SELECT oldest.id FROM (
                SELECT id, contact_id, due_at FROM delivery_message
                WHERE state = 'held' AND stream = s.stream AND reason = r.reason
                      AND due_at <= statement_timestamp()
                ORDER BY due_at LIMIT %(look)s) AS oldest
            JOIN contacts_contact AS c ON c.id = oldest.contact_id
            ORDER BY date_trunc('minute', oldest.due_at), c.engaged_at DESC NULLS LAST,
                     oldest.due_at
            LIMIT %(limit)s) AS w
    ), mine AS (
        SELECT m.id FROM delivery_message AS m JOIN due USING (id)
        WHERE m.state = 'held' ORDER BY m.id FOR NO KEY UPDATE OF m SKIP LOCKED
    )
    UPDATE delivery_message AS m SET state = 'queued', reason = '', detail = ''
    FROM mine WHERE m.id = mine.id
"""


def _release_waited() -> int:
    parameters: dict[str, Any] = {
        "streams": [stream.value for stream in Stream],
        "reasons": [reason.value for reason in WAITING_REASONS],
        "look": _LIMIT * _LOOK,
        "limit": _LIMIT,
    }
    with connection.cursor() as cursor:
        cursor.execute(_WAITED, parameters)
        return int(cursor.rowcount)


# Whatever a switch can tell apart is one part of what is held. The index leads from part to part,
# so that those that are still stopped are not read.
_STOPPED = """
    WITH RECURSIVE parts AS (
        (SELECT origin_campaign, stream, mailboxes, coalesce(sender_id, 0) AS sender_id
         FROM delivery_message
         WHERE state = 'held' AND reason IN ('kill_switch', 'campaign_paused', 'reputation')
         ORDER BY 1, 2, 3, 4 LIMIT 1)
      UNION ALL
        SELECT further.* FROM parts AS p CROSS JOIN LATERAL (
            SELECT origin_campaign, stream, mailboxes, coalesce(sender_id, 0)
            FROM delivery_message
            WHERE state = 'held' AND reason IN ('kill_switch', 'campaign_paused', 'reputation')
                  AND (origin_campaign, stream, mailboxes, coalesce(sender_id, 0))
                      > (p.origin_campaign, p.stream, p.mailboxes, p.sender_id)
            ORDER BY 1, 2, 3, 4 LIMIT 1) AS further
    ), free AS (
        SELECT p.* FROM parts AS p
        LEFT JOIN delivery_sender AS x
          ON x.id = p.sender_id OR (p.sender_id = 0 AND x.is_default)
        LEFT JOIN delivery_provider AS v ON v.id = x.provider_id
        CROSS JOIN LATERAL (SELECT lower(split_part(x.email, '@', 2))) AS d (domain)
        WHERE NOT EXISTS (
            SELECT FROM delivery_switch AS s
            WHERE s.per_hour IS NULL AND (s.target, s.key) IN (
                ('everything', ''), ('campaign', p.origin_campaign), ('provider', v.key),
                ('domain', d.domain), ('stream', p.stream || ':' || d.domain),
                ('mailboxes', p.stream || ':' || d.domain || ':' || p.mailboxes)))
    ), due AS MATERIALIZED (
        SELECT w.id FROM free AS f CROSS JOIN LATERAL (
            SELECT id FROM delivery_message
            WHERE state = 'held' AND reason IN ('kill_switch', 'campaign_paused', 'reputation')
                  AND origin_campaign = f.origin_campaign AND stream = f.stream
                  AND mailboxes = f.mailboxes AND coalesce(sender_id, 0) = f.sender_id
            LIMIT %(limit)s) AS w
        ORDER BY f.stream = 'transactional' DESC LIMIT %(limit)s
    ), mine AS (
        SELECT m.id FROM delivery_message AS m JOIN due USING (id)
        WHERE m.state = 'held' ORDER BY m.id FOR NO KEY UPDATE OF m SKIP LOCKED
    )
    UPDATE delivery_message AS m SET state = 'queued', reason = '', detail = ''
    FROM mine WHERE m.id = mine.id
"""


def _release_stopped() -> int:
    with connection.cursor() as cursor:
        cursor.execute(_STOPPED, {"limit": _FREED})
        return int(cursor.rowcount)


def _move(message: Message, fate: Verdict | None) -> Settled:
    if fate is None:
        return never_begun(message, message.attempts)
    return settled(message, message.attempts, fate)


def _proven(message: Message, accepted: bool) -> Settled:
    if accepted:
        return settled(message, message.attempts, Verdict(Outcome.ACCEPTED))
    return never_begun(message, message.attempts)

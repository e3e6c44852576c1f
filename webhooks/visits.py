"""Opens and clicks of our own, judged and acted on once it is known what happened around them."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models.functions import Now

from common.outages import is_outage
from delivery.models import Message, Visit
from delivery.states import Actor
from webhooks.actors import NEAR, Judgement, Seen, judge
from webhooks.feedback import apply_feedback
from webhooks.kinds import Feedback, FeedbackKind

logger = logging.getLogger(__name__)

BATCH = 100
SOURCE = "tracking"

RETRY_AFTER = timedelta(hours=1)
"""Until one that could not be judged is tried again."""

# Whoever judges the same at the same time would judge the same; skipped, it is only done once.
_DUE = """
    SELECT * FROM delivery_visit WHERE actor = '' AND due_at <= statement_timestamp()
    ORDER BY due_at, id LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
"""

_DUE_ALONE = """
    SELECT * FROM delivery_visit
    WHERE id = %s AND actor = '' AND due_at <= statement_timestamp()
    FOR NO KEY UPDATE SKIP LOCKED
"""

_AROUND = """
    SELECT DISTINCT ON (seen.id) seen.message_id, seen.at, seen.link_id, seen.client,
           seen.user_agent, seen.is_head, seen.is_prefetch, seen.actor = 'machine'
    FROM unnest(%s::uuid[], %s::timestamptz[]) AS visit (message_id, at)
    JOIN delivery_visit AS seen
      ON seen.message_id = visit.message_id
      AND seen.at BETWEEN visit.at - %s * interval '1 second'
                      AND visit.at + %s * interval '1 second'
"""

# What the request said of itself has served its purpose.
_JUDGED = """
    UPDATE delivery_visit AS v SET actor = j.actor, reason = j.reason, user_agent = ''
    FROM unnest(%s::bigint[], %s::text[], %s::text[]) AS j (id, actor, reason)
    WHERE v.id = j.id AND v.actor = ''
"""


def judge_visits() -> bool:
    """Judge up to `BATCH` visits whose time has come, and act on those by people; True if there
    may be more. The number of queries does not depend on theirs, unless one of them cannot be
    judged: then each stands for itself, and that one is put off."""
    try:
        return _judge(_DUE, BATCH) == BATCH
    except Exception as error:
        if is_outage(error):  # that is no visit's fault
            raise
    due = Visit.objects.filter(actor="", due_at__lte=Now()).order_by("due_at", "pk")
    ids = list(due.values_list("pk", flat=True)[:BATCH])
    for visit_id in ids:
        _judge_alone(visit_id)
    return len(ids) == BATCH


def _judge_alone(visit_id: int) -> None:
    try:
        _judge(_DUE_ALONE, visit_id)
    except Exception as error:
        if is_outage(error):
            raise
        logger.exception("visit not judged", extra={"visit": visit_id})
        Visit.objects.filter(pk=visit_id, actor="").update(due_at=Now() + RETRY_AFTER)


def _judge(statement: str, parameter: int) -> int:
    """Judge the visits that the statement finds; returns how many there were."""
    with transaction.atomic():
        visits = list(Visit.objects.raw(statement, [parameter]))
        if visits:
            _settle(visits)
    return len(visits)


def _settle(visits: Sequence[Visit]) -> None:
    ids = {visit.message_id for visit in visits}
    handed_over = dict(Message.objects.filter(pk__in=ids).values_list("pk", "handed_over_at"))
    judgements = _judgements(visits, handed_over)
    apply_feedback(
        [
            _feedback(visit)
            for visit, (actor, _) in zip(visits, judgements, strict=True)
            if actor == Actor.PERSON
        ]
    )
    columns = (
        [visit.pk for visit in visits],
        [judgement.actor.value for judgement in judgements],
        [judgement.reason for judgement in judgements],
    )
    with connection.cursor() as cursor:
        cursor.execute(_JUDGED, columns)


def _judgements(
    visits: Sequence[Visit], handed_over: dict[UUID, datetime | None]
) -> list[Judgement]:
    around: dict[UUID, list[Seen]] = defaultdict(list)
    with connection.cursor() as cursor:
        messages, times = [v.message_id for v in visits], [v.at for v in visits]
        cursor.execute(_AROUND, [messages, times, NEAR.seconds, NEAR.seconds])
        for message_id, *evidence in cursor.fetchall():
            around[message_id].append(_seen(*evidence))
    return [
        judge(
            _seen_in(visit),
            _near(around[visit.message_id], visit.at),
            handed_over[visit.message_id],
        )
        for visit in visits
    ]


def _near(seen: Sequence[Seen], at: datetime) -> list[Seen]:
    return [one for one in seen if abs(one.at - at) <= NEAR]


def _seen(at: datetime, link: UUID | None, client: Any, *rest: Any) -> Seen:
    return Seen(at, link, bytes(client), *rest)


def _seen_in(visit: Visit) -> Seen:
    return _seen(
        *(visit.at, visit.link_id, visit.client),
        *(visit.user_agent, visit.is_head, visit.is_prefetch),
    )


def _feedback(visit: Visit) -> Feedback:
    return Feedback(
        kind=FeedbackKind.OPENED if visit.link_id is None else FeedbackKind.CLICKED,
        at=visit.at,
        source=SOURCE,
        message_uuid=visit.message_id,
        detail="" if visit.link_id is None else f"link {visit.link_id}",
    )

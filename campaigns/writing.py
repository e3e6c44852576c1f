"""Writing a batch's moves: a handful of statements, whatever its size."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import connection

from campaigns.models import Enrollment, Wait
from campaigns.walk import Mail, Writes
from common.rows import insert_rows, new_row
from contacts.models import Contact
from delivery.models import Message
from delivery.states import Stream

_VERSIONS = "SELECT id, published_id FROM content_template WHERE id = ANY(%s)"
_MOVE = """
    UPDATE campaigns_enrollment AS e
    SET state = m.state, exit_reason = m.exit_reason, step_key = m.step_key, seq = m.seq,
        wake_at = m.wake_at, revision_id = m.revision_id, attempts = 0, error = ''
    FROM unnest(%s::uuid[], %s::int[], %s::text[], %s::text[], %s::text[], %s::int[],
                %s::timestamptz[], %s::bigint[])
         AS m (id, old_seq, state, exit_reason, step_key, seq, wake_at, revision_id)
    WHERE e.id = m.id AND e.seq = m.old_seq AND e.state = 'waiting'
"""


class Overtaken(Exception):
    """An enrollment was moved by somebody else meanwhile; the batch is to be tried again."""


def write(writes: Writes, contacts: Mapping[int, Contact]) -> list[str]:
    """Write everything down inside the caller's transaction; returns the lanes to ring after its
    commit. `contacts` are the people of the batch, by id."""
    insert_rows(writes.entered.values())
    _move(list(writes.moved.values()))
    messages = _messages(writes.mails, contacts)
    insert_rows(messages)
    insert_rows(writes.step_runs)
    if writes.ended_waits:
        Wait.objects.filter(enrollment_id__in=writes.ended_waits).delete()
    insert_rows(writes.waits.values())
    return sorted({message.stream for message in messages})


def _move(moved: Sequence[tuple[int, Enrollment]]) -> None:
    if not moved:
        return
    enrollments = [enrollment for _, enrollment in moved]
    with connection.cursor() as cursor:
        cursor.execute(
            _MOVE,
            [
                [e.pk for e in enrollments],
                [old_seq for old_seq, _ in moved],
                [str(e.state) for e in enrollments],
                [str(e.exit_reason) for e in enrollments],
                [e.step_key for e in enrollments],
                [e.seq for e in enrollments],
                [e.wake_at for e in enrollments],
                [e.revision_id for e in enrollments],
            ],
        )
        if cursor.rowcount != len(moved):
            raise Overtaken(f"{len(moved) - cursor.rowcount} of {len(moved)} enrollments")


def _messages(mails: Sequence[Mail], contacts: Mapping[int, Contact]) -> list[Message]:
    if not mails:
        return []
    wanted = {template_id for mail in mails if (template_id := mail.step.template_id)}
    with connection.cursor() as cursor:
        cursor.execute(_VERSIONS, [list(wanted)])
        versions = dict(cursor.fetchall())
    return [_message(mail, contacts[mail.enrollment.contact_id], versions) for mail in mails]


def _message(mail: Mail, contact: Contact, versions: Mapping[int, int]) -> Message:
    enrollment, plan, step = mail.enrollment, mail.plan, mail.step
    return new_row(
        Message,
        id=mail.message_id,
        # One message per step of an enrollment, whatever is run twice above.
        dedupe_key=f"{enrollment.pk}:{step.key}",
        contact_id=contact.pk,
        email=contact.email,
        email_normalized=contact.email_normalized or "",
        stream=Stream(plan.stream),
        topic_id=plan.topic_id,
        sender_id=plan.sender_id,
        # Publishing asks for a template with a published version, and neither can be taken away.
        template_version_id=versions[step.template_id or 0],
        context=_context(enrollment, contact),
        origin_event_id=enrollment.event_id,
        origin_campaign=plan.campaign_key,
        origin_step=step.key,
        origin_enrollment=str(enrollment.pk),
        depth=enrollment.context.get("depth", 0),
    )


def _context(enrollment: Enrollment, contact: Contact) -> dict[str, Any]:
    """What the template will see, frozen now, so that every attempt renders the same bytes."""
    event = enrollment.context
    return {
        "payload": event["payload"],
        "event": {
            "id": event["event_id"],
            "type": event["event_type"],
            "occurred_at": event["occurred_at"],
        },
        "user": {"id": contact.user_id or "", "name": contact.name, "email": contact.email},
        "contact": {
            "name": contact.name,
            "email": contact.email,
            "attributes": contact.attributes,
        },
    }

"""What is no longer kept: events, refusals and replies past their time. Runs as often as it likes,
stops in the middle without harm, and goes on where it stopped."""

from datetime import timedelta

from django.conf import settings
from django.db import connection
from django.db.models.functions import Now

from events.idempotency import KEPT
from events.models import Consumer, IdempotentReply, Rejection

_CHUNK = 5_000

# In the order of ids, which is that of arrival: a look at the oldest rows is enough to know that
# nothing is due. Dead letters stay until somebody decides.
_PURGE = """
    WITH oldest AS (
        SELECT id, state, received_at FROM events_event WHERE id > %(after)s
        ORDER BY id LIMIT %(chunk)s),
    gone AS (
        DELETE FROM events_event USING oldest
        WHERE events_event.id = oldest.id AND oldest.state IN ('processed', 'ignored')
              AND oldest.received_at < statement_timestamp() - %(days)s * interval '1 day'
        RETURNING 1)
    SELECT max(id), (SELECT count(*) FROM gone),
           coalesce(bool_or(received_at >= statement_timestamp() - %(days)s * interval '1 day'),
                    true)
    FROM oldest
"""


def purge(*, most: int = 1_000_000) -> int:
    """Delete what is past its retention; returns how many events went, at most about `most`.

    With an event goes the memory of its id: posted again after `events.retention_days`, it is a
    new one.
    """
    days = settings.EMAILAUTO.events.retention_days
    IdempotentReply.objects.filter(created_at__lt=Now() - KEPT).delete()
    Rejection.objects.filter(last_at__lt=Now() - timedelta(days=days)).delete()
    Consumer.objects.filter(seen_at__lt=Now() - timedelta(days=days)).delete()
    gone, after, is_done = 0, 0, False
    while not is_done and gone < most:
        with connection.cursor() as cursor:
            cursor.execute(_PURGE, {"after": after, "chunk": _CHUNK, "days": days})
            last, count, is_done = cursor.fetchone()
        gone, after = gone + count, last or 0
    return gone

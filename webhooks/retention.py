"""What is no longer kept of what came back. Runs as often as it likes, and stops in the middle
without harm."""

from django.db import connection

KEPT_DAYS = 90
"""Far longer than any provider repeats a call; what a receipt did stays with the message."""

_CHUNK = 5_000

# In the order of ids, which is that of arrival: a look at the oldest rows is enough to know that
# nothing is due. Dead ones stay until somebody decides.
_PURGE = """
    WITH oldest AS (
        SELECT id, state, received_at FROM webhooks_receipt WHERE id > %(after)s
        ORDER BY id LIMIT %(chunk)s),
    gone AS (
        DELETE FROM webhooks_receipt USING oldest
        WHERE webhooks_receipt.id = oldest.id AND oldest.state = 'applied'
              AND oldest.received_at < statement_timestamp() - %(days)s * interval '1 day'
        RETURNING 1)
    SELECT max(id), (SELECT count(*) FROM gone),
           coalesce(bool_or(received_at >= statement_timestamp() - %(days)s * interval '1 day'),
                    true)
    FROM oldest
"""


def purge_receipts(*, most: int = 1_000_000) -> int:
    """Delete applied receipts past their time; returns how many went, at most about `most`."""
    gone, after, is_done = 0, 0, False
    while not is_done and gone < most:
        with connection.cursor() as cursor:
            cursor.execute(_PURGE, {"after": after, "chunk": _CHUNK, "days": KEPT_DAYS})
            last, count, is_done = cursor.fetchone()
        gone, after = gone + count, last or 0
    return gone

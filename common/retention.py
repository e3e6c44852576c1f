"""Deleting what has been kept long enough."""

from collections.abc import Iterable
from typing import Any

from django.db import connection

# A look at the oldest rows is enough to know that nothing is due.
_PURGE = """
    WITH oldest AS (
        SELECT id, state, received_at FROM {table} WHERE id > %(after)s
        ORDER BY id LIMIT %(chunk)s),
    gone AS (
        DELETE FROM {table} AS t USING oldest
        WHERE t.id = oldest.id AND oldest.state = ANY(%(states)s)
              AND oldest.received_at < statement_timestamp() - %(days)s * interval '1 day'
        RETURNING 1)
    SELECT max(id), (SELECT count(*) FROM gone),
           coalesce(bool_or(received_at >= statement_timestamp() - %(days)s * interval '1 day'),
                    true)
    FROM oldest
"""
_CHUNK = 5_000


def purge_received(table: str, states: Iterable[str], *, days: int, most: int) -> int:
    """Delete the rows in these states that were received more than `days` ago, some thousand at a
    time; returns how many went, at most about `most`. Ids are in the order of arrival. Stops in
    the middle without harm."""
    statement = _PURGE.format(table=connection.ops.quote_name(table))
    values: dict[str, Any] = {
        "states": [str(state) for state in states],
        "days": days,
        "chunk": _CHUNK,
    }
    gone, after, is_done = 0, 0, False
    while not is_done and gone < most:
        with connection.cursor() as cursor:
            cursor.execute(statement, {**values, "after": after})
            last, count, is_done = cursor.fetchone()
        gone, after = gone + count, last or 0
    return gone

"""What PostgreSQL really read for a statement."""

import json
from collections.abc import Iterator
from typing import Any

from django.db import connection, transaction


def most_read(statement: str, parameters: Any) -> int:
    """The most rows that one step of the statement's plan went through; its changes are undone."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
        (found,) = cursor.fetchone()
        transaction.set_rollback(True)
    plan = json.loads(found) if isinstance(found, str) else found
    return max(_rows(plan[0]["Plan"]))


def _rows(node: dict[str, Any]) -> Iterator[int]:
    passed_over = sum(v for k, v in node.items() if k.startswith("Rows Removed by"))
    yield round((node["Actual Rows"] + passed_over) * node["Actual Loops"])
    for child in node.get("Plans", ()):
        yield from _rows(child)


def multiply(count: int) -> None:
    """`count` copies of each message, queued or held like it, and statistics that know it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_name = 'delivery_message' ORDER BY ordinal_position"
        )
        columns = [name for (name,) in cursor.fetchall()]
        new = {"id": "gen_random_uuid()", "dedupe_key": "dedupe_key || '-' || g"}
        cursor.execute(
            f"INSERT INTO delivery_message ({', '.join(columns)})"
            f" SELECT {', '.join(new.get(name, name) for name in columns)}"
            " FROM delivery_message CROSS JOIN generate_series(1, %s) AS g",
            [count],
        )
        cursor.execute("ANALYZE delivery_message")

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


def scanned(statement: str) -> set[str]:
    """The tables that the statement's plan reads from one end to the other."""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}")
        (found,) = cursor.fetchone()
    plan = json.loads(found) if isinstance(found, str) else found
    return {
        node["Relation Name"] for node in _nodes(plan[0]["Plan"]) if node["Node Type"] == "Seq Scan"
    }


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def multiply(count: int) -> None:
    """`count` copies of each message, queued or held like it, and statistics that know it."""
    copy_rows(
        "delivery_message", count, id="gen_random_uuid()", dedupe_key="dedupe_key || '-' || g"
    )


def copy_rows(table: str, count: int, **new: str) -> None:
    """`count` copies of each row, but for these columns, given as SQL with the number of the copy
    as `g`; and statistics that know it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_name = %s AND is_generated = 'NEVER' AND is_identity = 'NO'"
            " ORDER BY ordinal_position",
            [table],
        )
        columns = [name for (name,) in cursor.fetchall()]
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(columns)})"
            f" SELECT {', '.join(new.get(name, name) for name in columns)}"
            f" FROM {table} CROSS JOIN generate_series(1, %s) AS g",
            [count],
        )
        cursor.execute(f"ANALYZE {table}")

"""PostgreSQL where the ORM stops: arrays, advisory locks, the clock."""

import hashlib
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from django.db import connection


def array(values: Iterable[object]) -> str:
    """Values of one type as PostgreSQL reads an array of them, for a parameter with a cast
    (`%s::uuid[]`). psycopg, which looks into each value for itself, takes five times as long."""
    return "{" + ",".join(map(_element, values)) + "}"


def _element(value: object) -> str:
    match value:
        case str():
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{escaped}"'
        case None:
            return "NULL"
        case bytes():
            return f'"\\\\x{value.hex()}"'
        case UUID():
            return value.hex
        case bool() | int() | float():
            return str(value)
    raise TypeError(f"no element of an array: {type(value).__name__}")


def lock_names(names: Iterable[bytes], *, shared: bool) -> None:
    """Take the lock of each name, whatever the number in one statement, until the transaction
    ends.

    In one order everywhere, so that two transactions cannot wait for each other.
    """
    digests = (hashlib.sha256(name).digest() for name in names)
    keys = sorted({int.from_bytes(digest[:8], "big", signed=True) for digest in digests})
    if not keys:
        return
    function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT count({function}(key)) FROM "  # noqa: S608 - one of two literals above
            "(SELECT key FROM unnest(%s::bigint[]) AS key ORDER BY key) AS ordered",
            [array(keys)],
        )


def database_time() -> datetime:
    """The time by the database's clock, which due times and leases go by."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement_timestamp()")
        moment: datetime = cursor.fetchone()[0]
    return moment

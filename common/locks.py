"""Advisory locks in PostgreSQL, held until the transaction ends."""

import hashlib
from collections.abc import Iterable

from django.db import connection


def lock_names(names: Iterable[bytes], *, shared: bool) -> None:
    """Take the lock of each name, whatever the number in one statement.

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
            [keys],
        )

"""PostgreSQL where the ORM stops: advisory locks, and rows by the hundred."""

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from django.db import Error, InterfaceError, OperationalError, connection
from django.db.models import Model
from django.db.models.expressions import DatabaseDefault

T = TypeVar("T")
M = TypeVar("M", bound=Model)

# Connection exceptions, and a server that shuts down, crashed or is not up yet.
_GOING_AWAY = ("08", "57P")

_PATIENCE_SECONDS = 30.0
_PLANS_SECONDS = 1.0
_LONGEST_PAUSE = 1.0


def is_outage(error: BaseException) -> bool:
    """Whether the database went away, so that what failed proves nothing about the work."""
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    # Without a code the server said nothing: connection refused, closed, reset.
    code = getattr(error.__cause__, "sqlstate", None)
    return code is None or code.startswith(_GOING_AWAY)


def insist(work: Callable[[], T], *, meanwhile: Callable[[], object] | None = None) -> T:
    """Run `work` until the database is there to do it, for half a minute: a restart is over by
    then, and a shutdown does not wait longer. `meanwhile` is called once it turns out to be away.

    The work may be run again after a commit whose answer was lost, so it has to be idempotent.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    pause = 0.1
    while True:
        try:
            return work()
        except Error as error:
            if not is_outage(error) or time.monotonic() > deadline:
                raise
            connection.close()
            if meanwhile is not None:
                meanwhile()
                meanwhile = None
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


_FORGET = "DISCARD PLANS; "
IN_ORDER = "SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off; "


def claim_rows(model: type[M], statement: str, parameters: Mapping[str, Any]) -> list[M]:
    """Run the claim, an `UPDATE … RETURNING`, in a transaction of its own and one round trip; the
    rows as instances, further columns as their attributes.

    A claim takes the first of many by an index. Rows by the million that nobody has counted yet
    look few to the planner, which then reads or sorts them all for each claim. So it is kept from
    that; and what is claimed has to be an `ARRAY(SELECT …)`, which is asked once, while an `IN` may
    be asked for every row there is.

    Once a second the plans of this connection are forgotten, too. PostgreSQL keeps one for each
    foreign key that it checks: made while a table was all but empty, it reads the whole of it for
    every row that is written, until somebody analyzes it. The commit of 200 events took 2 ms at
    first, and 150 ms with 10,000 in.
    """
    global _planned_at
    is_stale = time.monotonic() - _planned_at > _PLANS_SECONDS
    if is_stale:
        _planned_at = time.monotonic()
    with connection.cursor() as cursor:
        # What is sent together is one transaction, unless there is one already.
        cursor.execute((_FORGET if is_stale else "") + IN_ORDER + statement, parameters)
        while cursor.nextset():
            pass
        return _instances(model, cursor)


_planned_at = 0.0


def rows_of(model: type[M], statement: str, parameters: Sequence[Any] = ()) -> list[M]:
    """The rows that the statement returns as instances of the model. For what each batch asks
    again: the ORM takes as long to put a query together as PostgreSQL takes to answer it."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return _instances(model, cursor)


def _instances(model: type[M], cursor: Any) -> list[M]:
    # As `QuerySet.raw` makes them, at half its cost. A model takes its values in its own order.
    fields = model._meta.concrete_fields
    columns = [column[0] for column in cursor.description]
    positions = [columns.index(field.column) for field in fields]
    others = sorted(set(range(len(columns))) - set(positions))
    names = [field.attname for field in fields]
    converters = [
        (position, converter)
        for position, field in zip(positions, fields, strict=True)
        for converter in field.get_db_converters(connection)
    ]
    made = []
    for row in map(list, cursor.fetchall()):
        for position, convert in converters:
            row[position] = convert(row[position], None, connection)
        instance = model.from_db(connection.alias, names, [row[i] for i in positions])
        for position in others:
            setattr(instance, columns[position], row[position])
        made.append(instance)
    return made


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
            [keys],
        )


def insert_rows(rows: Iterable[Model], *, ignore_conflicts: bool = False) -> None:
    """Insert rows of one model in one statement, as `bulk_create` does, at a fifth of its cost:
    one JSON document instead of a quoted parameter per column and row.

    Keys and defaults of the database are left to it, and what it made of them is not read back.
    Values are what JSON can say, times and UUIDs; the order is that of the rows.
    """
    rows = list(rows)
    if not rows:
        return
    meta = rows[0]._meta
    names = _given_columns(rows[0])
    documents = [{column: getattr(row, name) for name, column in names} for row in rows]
    table = connection.ops.quote_name(meta.db_table)
    columns = ", ".join(connection.ops.quote_name(column) for _, column in names)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({columns}) SELECT {columns} "  # noqa: S608 - names of a model
            f"FROM jsonb_populate_recordset(NULL::{table}, %s::jsonb)"
            f"{' ON CONFLICT DO NOTHING' if ignore_conflicts else ''}",
            [msgspec.json.encode(documents).decode()],
        )


def _given_columns(row: Model) -> Sequence[tuple[str, str]]:
    """Attribute and column of the fields that have a value before the database has spoken."""
    fields: Sequence[Any] = row._meta.concrete_fields
    return [
        (field.attname, field.column)
        for field in fields
        if not isinstance(value := getattr(row, field.attname), DatabaseDefault)
        and not (value is None and field.primary_key)
    ]


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


def database_time() -> datetime:
    """The time by the database's clock, which due times and leases go by."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement_timestamp()")
        moment: datetime = cursor.fetchone()[0]
    return moment

"""Rows by the hundred: from the database into instances of a model, and from these into it.

For what every batch does. The ORM takes as long to put such a query together as PostgreSQL takes to
answer it, and longer to make the instances.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

import msgspec
from django.db import DEFAULT_DB_ALIAS, connection
from django.db.models import JSONField, Model
from django.db.models.base import ModelState
from django.db.models.expressions import DatabaseDefault
from psycopg.abc import Buffer
from psycopg.types.datetime import TimestamptzLoader

M = TypeVar("M", bound=Model)

_PLANS_SECONDS = 1.0
_FORGET = "DISCARD PLANS; "
# PostgreSQL takes 256 MB in one document, and hangs up on a statement of 1 GB.
_MOST_BYTES = 16 * 1024 * 1024
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
        _execute(cursor, (_FORGET if is_stale else "") + IN_ORDER + statement, parameters)
        while cursor.nextset():
            pass
        return _instances(model, cursor)


_planned_at = 0.0


def rows_of(model: type[M], statement: str, parameters: Sequence[Any] = ()) -> list[M]:
    """The rows that the statement returns, as instances of the model."""
    with connection.cursor() as cursor:
        _execute(cursor, statement, parameters)
        return _instances(model, cursor)


class _Moments(TimestamptzLoader):
    """Times as Python reads them, which takes it a tenth of what psycopg takes."""

    def load(self, data: Buffer) -> datetime:
        try:
            return datetime.fromisoformat(str(data, "ascii"))
        except ValueError:  # another DateStyle, a year that Python has not
            return super().load(data)


def _execute(cursor: Any, statement: str, parameters: Any) -> None:
    cursor.adapters.register_loader("timestamptz", _Moments)
    cursor.execute(statement, parameters)


def _instances(model: type[M], cursor: Any) -> list[M]:
    fields = {field.column: field for field in model._meta.concrete_fields}
    columns = [column.name for column in cursor.description]
    names = [fields[column].attname if column in fields else column for column in columns]
    converters = [
        (fields[column].attname, converter)
        for column in columns
        if column in fields
        for converter in _converters(fields[column])
    ]
    made = []
    for row in cursor.fetchall():
        values = dict(zip(names, row, strict=True))
        for name, convert in converters:
            values[name] = convert(values[name], None, connection)
        made.append(_made(model, values, is_stored=True))
    return made


def _converters(field: Any) -> Sequence[Callable[..., Any]]:
    if isinstance(field, JSONField) and field.decoder is None:
        return [_document]
    converters: Sequence[Callable[..., Any]] = field.get_db_converters(connection)
    return converters


def _document(text: str | None, *_: object) -> Any:
    # The same objects as from `json`, in a third of the time.
    return None if text is None else msgspec.json.decode(text)


def new_row(model: type[M], **values: Any) -> M:
    """As `model(**values)`, with foreign keys by their ids (`contact_id`) alone."""
    common, makers = _defaults(model)
    made = {name: make() for name, make in makers if name not in values}
    return _made(model, {**common, **made, **values}, is_stored=False)


@cache
def _defaults(model: type[Model]) -> tuple[dict[str, Any], list[tuple[str, Callable[[], Any]]]]:
    """What every new instance has, and what makes the rest."""
    fields: Sequence[Any] = model._meta.concrete_fields
    makers = [(f.attname, f.default) for f in fields if f.has_default() and callable(f.default)]
    blank = vars(model())
    made = {name for name, _ in makers}
    return {f.attname: blank[f.attname] for f in fields if f.attname not in made}, makers


def _made(model: type[M], values: dict[str, Any], *, is_stored: bool) -> M:
    # `Model.__init__` asks every field what to do with its value and sends two signals, at twenty
    # times the cost. There is nothing to do, and nobody listens.
    instance = model.__new__(model)
    state = ModelState()
    if is_stored:
        state.adding, state.db = False, DEFAULT_DB_ALIAS
    vars(instance).update(values, _state=state)
    return instance


def insert_rows(rows: Iterable[Model], *, ignore_conflicts: bool = False) -> None:
    """Insert rows of one model as `bulk_create` does, at a tenth of its cost: one JSON document
    instead of a quoted parameter per column and row, in which what all rows share is said once.
    One statement, more only where that would be beyond `_MOST_BYTES`.

    Keys and defaults of the database are left to it, and what it made of them is not read back.
    Values are what JSON can say, times and UUIDs; the order is that of the rows.
    """
    rows = list(rows)
    if not rows:
        return
    meta = rows[0]._meta
    names = _given_columns(rows[0])
    shared, documents = _said_once(rows, names)
    table = connection.ops.quote_name(meta.db_table)
    columns = ", ".join(connection.ops.quote_name(column) for _, column in names)
    statement = (
        f"INSERT INTO {table} ({columns}) SELECT {columns} "  # noqa: S608 - names of a model
        f"FROM jsonb_populate_recordset(jsonb_populate_record(NULL::{table}, %s), %s)"
        f"{' ON CONFLICT DO NOTHING' if ignore_conflicts else ''}"
    )
    common = msgspec.json.encode(shared).decode()
    with connection.cursor() as cursor:
        for some in _that_fit(documents):
            cursor.execute(statement, [common, some])


def _given_columns(row: Model) -> Sequence[tuple[str, str]]:
    """Attribute and column of the fields that have a value before the database has spoken."""
    fields: Sequence[Any] = row._meta.concrete_fields
    return [
        (field.attname, field.column)
        for field in fields
        if not isinstance(value := getattr(row, field.attname), DatabaseDefault)
        and not (value is None and field.primary_key)
    ]


def _said_once(
    rows: Sequence[Model], names: Sequence[tuple[str, str]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The values that are the very same object in all rows, by column; and of each row the rest.
    (The same, not equal: to Python 1 and true are equal, also within a document.)"""
    first, *others = map(vars, rows)
    shared = {
        column: first[name]
        for name, column in names
        if all(other[name] is first[name] for other in others)
    }
    rest = [(name, column) for name, column in names if column not in shared]
    return shared, [{column: row[name] for name, column in rest} for row in (first, *others)]


def _that_fit(documents: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The documents as JSON lists of `_MOST_BYTES` at most, unless one alone is beyond that."""
    texts: list[bytes] = []
    size = 0
    for document in documents:
        text = msgspec.json.encode(document)
        if texts and size + len(text) > _MOST_BYTES:
            yield (b"[" + b",".join(texts) + b"]").decode()
            texts, size = [], 0
        texts.append(text)
        size += len(text)
    yield (b"[" + b",".join(texts) + b"]").decode()

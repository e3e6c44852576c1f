"""Rows into instances and instances into rows, as the ORM would have it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection
from django.db.models.expressions import DatabaseDefault

from common.ids import uuid7
from common.rows import claim_rows, insert_rows, new_row, rows_of
from contacts.models import Contact
from delivery.models import Message
from events.models import Event, EventType
from tests.factories import EventFactory, MessageFactory

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _live_connection_afterwards(transactional_db: None) -> Iterator[None]:
    yield
    connection.close()


def values_of(row: Any) -> dict[str, Any]:
    fields = row._meta.concrete_fields
    return {field.attname: getattr(row, field.attname) for field in fields}


def stored_messages(count: int) -> list[Message]:
    return [
        MessageFactory.create(context={"payload": {"n": n, "t": "ä\"'\\"}}) for n in range(count)
    ]


def test_rows_are_what_the_orm_makes_of_them() -> None:
    stored_messages(2)
    Message.objects.update(wire_hash=b"\x00\xff")
    rows = rows_of(Message, "SELECT *, 7 AS more FROM delivery_message ORDER BY id")
    stored = list(Message.objects.order_by("id"))
    assert [values_of(row) for row in rows] == [values_of(row) for row in stored]
    assert rows == stored
    assert [row.more for row in rows] == [7, 7]  # type: ignore[attr-defined]
    assert rows[0].contact == stored[0].contact
    rows[0].detail = "changed"
    rows[0].save()
    assert Message.objects.filter(detail="changed").get() == rows[0]


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 11, 30, 9, 5, 7, 123_450, tzinfo=UTC),
        datetime(2026, 2, 1, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC),
    ],
)
def test_times_are_read_to_the_microsecond(moment: datetime) -> None:
    EventFactory.create(occurred_at=moment)
    (row,) = rows_of(Event, "SELECT * FROM events_event")
    assert row.occurred_at == moment
    assert row.occurred_at.utcoffset() == timedelta(0)


def test_new_row_is_what_the_model_makes() -> None:
    ours = new_row(Contact, user_id="u1", name="Ada")
    theirs = Contact(user_id="u1", name="Ada")
    is_default = [isinstance(value, DatabaseDefault) for value in values_of(theirs).values()]
    assert [isinstance(value, DatabaseDefault) for value in values_of(ours).values()] == is_default
    assert {**values_of(ours), **left_to_the_database(ours)} == {
        **values_of(theirs),
        **left_to_the_database(ours),
    }
    ours.save()
    assert Contact.objects.get() == ours


def left_to_the_database(row: Any) -> dict[str, Any]:
    return {k: None for k, v in values_of(row).items() if isinstance(v, DatabaseDefault)}


def test_new_rows_do_not_share_what_their_defaults_make() -> None:
    one, other = new_row(Contact), new_row(Contact)
    one.attributes["n"] = 1
    assert other.attributes == {}
    assert new_row(Message).pk != new_row(Message).pk


@pytest.mark.parametrize("count", [1, 50])
def test_rows_are_inserted_as_bulk_create_does(
    count: int, django_assert_num_queries: Callable[[int], AbstractContextManager[Any]]
) -> None:
    # Equal to Python, and three different documents.
    alike = [{"n": 1}, {"n": True}, {"n": 1.0}, {"n": None}]
    model = stored_messages(1)[0]

    def rows(prefix: str) -> list[Message]:
        return [
            Message(
                **{**values_of(model), "id": uuid7(), "dedupe_key": f"{prefix}{n}"},
            )
            for n in range(count)
        ]

    ours, theirs = rows("ours"), rows("theirs")
    for made in (ours, theirs):
        for n, row in enumerate(made):
            row.context = alike[n % 4]
            row.topic_id, row.email = None, "" if n % 3 else f"ä\"'\\{n}@example.org"
    with django_assert_num_queries(1):
        insert_rows(ours)
    Message.objects.bulk_create(theirs)
    assert read_back("ours") == read_back("theirs")


def read_back(prefix: str) -> list[Any]:
    # As text: to Python 1 and true are equal.
    names = [
        f.attname for f in Message._meta.concrete_fields if f.attname not in {"id", "dedupe_key"}
    ]
    found = Message.objects.filter(dedupe_key__startswith=prefix).order_by("dedupe_key")
    return [repr(row) for row in found.values_list(*names)]


def test_inserting_leaves_out_what_is_there_only_when_asked() -> None:
    insert_rows([new_row(Contact, user_id="u1")])
    insert_rows([new_row(Contact, user_id=name) for name in ("u1", "u2")], ignore_conflicts=True)
    assert sorted(Contact.objects.values_list("user_id", flat=True)) == ["u1", "u2"]
    with pytest.raises(IntegrityError):
        insert_rows([new_row(Contact, user_id=name) for name in ("u2", "u3")])
    assert Contact.objects.count() == 2


def test_more_is_inserted_than_fits_into_one_document() -> None:
    # PostgreSQL takes 256 MB of one.
    traits = {"a": "x" * 15_000_000}
    insert_rows(
        [new_row(Contact, user_id=f"u{n:02}", attributes=traits | {"n": n}) for n in range(18)]
    )
    stored = Contact.objects.order_by("pk").values_list("user_id", "attributes__n")
    assert list(stored) == [(f"u{n:02}", n) for n in range(18)]


_NOTHING = "UPDATE events_eventtype SET name = name WHERE false RETURNING *"


def test_foreign_keys_are_checked_by_index_although_the_table_was_empty_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE whole (id int PRIMARY KEY)")
        cursor.execute("CREATE TABLE part (whole_id int REFERENCES whole)")
        try:
            cursor.execute("ANALYZE whole")
            cursor.execute("INSERT INTO whole SELECT generate_series(1, 10)")
            # From the sixth time on a plan is kept.
            for number in range(1, 9):
                cursor.execute("INSERT INTO part VALUES (%s)", [number])
            cursor.execute("INSERT INTO whole SELECT generate_series(11, 20000)")
            before = _read_row_by_row("whole")
            monkeypatch.setattr("common.rows._planned_at", 0.0)
            claim_rows(EventType, _NOTHING, {})
            cursor.execute("INSERT INTO part SELECT generate_series(19901, 20000)")
            assert _read_row_by_row("whole") - before < 20_000
        finally:
            cursor.execute("DROP TABLE part, whole")


def _read_row_by_row(table: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = %s", [table])
        return int(cursor.fetchone()[0])

"""What is done when PostgreSQL drops a connection."""

from collections.abc import Callable, Iterator

import pytest
from celery import signals
from django.db import Error, OperationalError, connection, transaction

from common.outages import insist, is_outage
from tests.outage import drop_database_connection

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _live_connection_afterwards(transactional_db: None) -> Iterator[None]:
    yield
    connection.close()


def ask() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return int(cursor.fetchone()[0])


def failure(work: Callable[[], object]) -> Exception:
    with pytest.raises(Error) as caught:
        work()
    return caught.value


def test_outage_is_told_from_a_refused_statement() -> None:
    def cut_off() -> None:
        drop_database_connection()
        ask()

    def cut_off_in_a_transaction() -> None:
        with transaction.atomic():
            cut_off()

    assert not is_outage(failure(lambda: connection.cursor().execute("SELECT 1/0")))
    assert is_outage(failure(cut_off))
    assert is_outage(failure(ask))
    connection.close()
    assert is_outage(failure(cut_off_in_a_transaction))
    assert not is_outage(RuntimeError())


@pytest.mark.parametrize("short_of", ["disk_full", "out_of_memory", "too_many_connections"])
def test_server_that_is_short_of_something_is_an_outage(short_of: str) -> None:
    # Said by the server, not done to it: the tests beside this one share it.
    def refused() -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"DO $$ BEGIN RAISE 'no room' USING ERRCODE = '{short_of}'; END $$")

    error = failure(refused)
    assert str(getattr(error.__cause__, "sqlstate", None)).startswith("53")
    assert is_outage(error)


def test_nobody_there_is_an_outage() -> None:
    connection.close()
    port = connection.settings_dict["PORT"]
    connection.settings_dict["PORT"] = "1"
    try:
        assert is_outage(failure(ask))
    finally:
        connection.settings_dict["PORT"] = port


def test_insisting_gets_it_done_on_a_new_connection() -> None:
    calls: list[str] = []
    ask()
    drop_database_connection()
    assert insist(ask, meanwhile=lambda: calls.append("noted")) == 1
    assert calls == ["noted"]
    assert insist(ask, meanwhile=lambda: calls.append("not called")) == 1
    assert calls == ["noted"]


def test_insisting_does_not_repeat_what_the_database_refuses() -> None:
    attempts = 0

    def timed_out() -> None:
        nonlocal attempts
        attempts += 1
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = 10")
            try:
                cursor.execute("SELECT pg_sleep(5)")
            finally:
                cursor.execute("RESET statement_timeout")

    with pytest.raises(OperationalError):
        insist(timed_out)
    assert attempts == 1


def test_worker_starts_a_task_on_a_connection_that_lives() -> None:
    ask()
    drop_database_connection()
    signals.task_prerun.send(sender=None)
    assert ask() == 1

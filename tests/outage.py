"""Outages: Redis that is away and comes back, PostgreSQL that drops our connection or is full."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from django.db import connection
from django.test import override_settings

from common.valkey import forget_client, redis_client


@contextmanager
def redis_away(*, hangs: bool = False) -> Iterator[None]:
    """Inside, Redis refuses connections, or with `hangs` takes them and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if hangs:
            server.listen(16)
        with override_settings(REDIS_URL=f"redis://127.0.0.1:{server.getsockname()[1]}/0"):
            forget_client()
            try:
                yield
            finally:
                redis_client().close()
                forget_client()


def drop_database_connection() -> None:
    """End this thread's session from the server's side, as a restart of PostgreSQL does."""
    connection.ensure_connection()
    ours = connection.connection.info.backend_pid
    parameters = connection.get_connection_params()
    known = {
        k: parameters[k] for k in ("dbname", "user", "password", "host", "port") if k in parameters
    }
    with psycopg.connect(**known, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [ours])


def wait_for_the_end_of_transactions() -> None:
    """Until no other session of this database has one. That of a process that was killed ends, and
    its locks with it, when its server process gets its turn and finds the connection closed."""
    deadline = time.monotonic() + 60.0
    with connection.cursor() as cursor:
        while True:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
                " AND backend_type = 'client backend'"
            )
            if not cursor.fetchone()[0]:
                return
            assert time.monotonic() < deadline, "a transaction does not end"
            time.sleep(0.02)


@contextmanager
def disk_full(table: str) -> Iterator[None]:
    """Inside, PostgreSQL says of every insertion into the table that its disk is full."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION is_full() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE 'no space left on device' USING ERRCODE = 'disk_full'; END $$"
        )
        cursor.execute(
            f"CREATE TRIGGER full_disk BEFORE INSERT ON {table} EXECUTE FUNCTION is_full()"
        )
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP FUNCTION is_full CASCADE")

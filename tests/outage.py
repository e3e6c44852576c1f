"""Outages: Redis that is away and comes back, PostgreSQL that drops our connection."""

import socket
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

"""Databases of our own on the server of DATABASE_URL. What is in there already is not touched."""

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql


@dataclass(frozen=True, slots=True)
class Database:
    """A database by its URL."""

    url: str

    @property
    def name(self) -> str:
        return urlsplit(self.url).path[1:]

    def execute(self, statement: str | sql.Composed) -> None:
        """Run the statement on a connection of its own, outside a transaction."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode() if isinstance(statement, str) else statement)

    def count(self, table: str) -> int:
        """How many rows the table has."""
        with psycopg.connect(self.url) as connection:
            query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
            row = connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])


def server() -> Database:
    """The database that the environment names."""
    return Database(os.environ["DATABASE_URL"])


def server_version() -> str:
    """`18.6`, for the line that says what was measured on."""
    with psycopg.connect(server().url) as connection:
        return connection.info.parameter_status("server_version") or "?"


@contextlib.contextmanager
def fresh_database(name: str, *, like: Database | None = None) -> Iterator[Database]:
    """An empty database, or a copy of one that nobody is connected to; dropped afterwards."""
    own = f"bench_{name}_{secrets.token_hex(4)}"
    copied = f' TEMPLATE "{like.name}"' if like else ""
    server().execute(f'CREATE DATABASE "{own}"{copied}')
    try:
        yield Database(urlsplit(server().url)._replace(path=f"/{own}").geturl())
    finally:
        server().execute(f'DROP DATABASE "{own}" WITH (FORCE)')


def copy_rows(
    connection: psycopg.Connection[Any], statement: str, rows: Iterable[Sequence[Any]]
) -> None:
    """Write the rows by a `COPY … FROM STDIN`."""
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        for row in rows:
            copy.write_row(row)

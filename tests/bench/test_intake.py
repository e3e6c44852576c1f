"""What the intake benchmarks believe, and what they do not."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg
import pytest

from bench.database import Database, fresh_database
from bench.intake import measure
from bench.processes import BenchError
from bench.sides import Side


@pytest.fixture
def database() -> Iterator[Database]:
    with fresh_database("test") as database:
        database.execute("CREATE TABLE event (id bigint)")
        yield database


class Handler(BaseHTTPRequestHandler):
    """Says yes to everything and keeps nothing."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_events_that_were_answered_and_not_stored_end_the_benchmark(
    database: Database, port: int
) -> None:
    side = Side("liar", port, "/events", "Bearer x", database, "event")
    with pytest.raises(BenchError, match="liar answered for 20 events and stored 0"):
        measure(side, "p", events=20, batch=1)


def test_table_is_emptied_before_the_run_unless_the_side_says_otherwise(
    database: Database, port: int
) -> None:
    database.execute("INSERT INTO event VALUES (1), (2)")
    kept = Side("kept", port, "/events", "Bearer x", database, "event", is_emptied=False)
    emptied = Side("emptied", port, "/events", "Bearer x", database, "event")
    for side, rows in ((kept, 2), (emptied, 0)):
        with pytest.raises(BenchError, match="stored 0"):
            measure(side, "p", events=1, batch=1)
        assert database.count("event") == rows


def test_fresh_database_is_gone_afterwards(database: Database) -> None:
    with fresh_database("test") as other:
        assert other.url != database.url
        other.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        other.execute("SELECT 1")

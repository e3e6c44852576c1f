"""What every test gets: real PostgreSQL and Valkey, and no way out of this machine."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import current_app
from django.conf import settings
from django.db import connection
from psycopg.pq import TransactionStatus

from common.valkey import forget_client
from tests import auditor
from tests.delivery.ledger import Ledger
from tests.logbook import open_logbook

_connect = socket.socket.connect


def _connect_to_loopback_only(self: socket.socket, address: Any) -> Any:
    if self.family in (socket.AF_INET, socket.AF_INET6):
        host = str(address[0])
        if not host.startswith("127.") and host not in ("::1", "localhost", "0.0.0.0"):
            raise RuntimeError("a test tried to leave this machine")
    return _connect(self, address)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", _connect_to_loopback_only)


@pytest.fixture(scope="session", autouse=True)
def _own_redis_database(request: pytest.FixtureRequest) -> None:
    """Each test process has a Redis database of its own."""
    worker = getattr(request.config, "workerinput", {}).get("workerid", "gw0")
    base = settings.REDIS_URL.rpartition("/")[0]
    settings.REDIS_URL = f"{base}/{10 + int(worker.removeprefix('gw')) % 6}"
    forget_client()


@pytest.fixture(autouse=True)
def _forgetful(settings: Any) -> None:
    """What one test stores, the next line of it finds."""
    settings.INTAKE_CACHE_SECONDS = 0
    settings.ROUTING_CACHE_SECONDS = 0


@pytest.fixture(autouse=True)
def _quiet_bell() -> None:
    """Rings go to a broker nobody listens to, and no test sees another's keys."""
    current_app.conf.broker_url = "memory://"
    # Patient, unlike the application's client: the machine may be busy with another test.
    with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=20) as patient:
        patient.flushdb()


@pytest.fixture(autouse=True)
def _audited(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> Iterator[None]:
    """After each test, and before its rows are gone, every invariant has to hold.

    It stands between the database and everything else: what the test has set stays set.
    """
    node: pytest.Item = request.node
    has_database = node.get_closest_marker("django_db") or {"db", "transactional_db"} & set(
        request.fixturenames
    )
    if has_database:
        request.getfixturevalue("db")
    with open_logbook() as logbook:
        yield
    if node.get_closest_marker("unaudited"):
        return
    breaches = logbook.breaches
    if has_database and _can_be_asked() and (Ledger.opened or not auditor.is_empty()):
        taken = [entry for ledger in Ledger.opened for entry in ledger.entries()]
        breaches = breaches + auditor.audit(ledger=taken, lease_seconds=settings.LEASE_SECONDS)
    Ledger.close_all()
    marker = node.get_closest_marker("audited")
    excepted = marker.kwargs["except_"] if marker else set()
    breaches = [breach for breach in breaches if breach.partition(":")[0] not in excepted]
    if breaches:
        pytest.fail("\n".join(["What must never be is:", *breaches[:20]]), pytrace=False)


def _can_be_asked() -> bool:
    """Not inside a transaction that has failed: its rows are gone already."""
    if connection.connection is None:
        return not connection.in_atomic_block
    return connection.connection.info.transaction_status != TransactionStatus.INERROR

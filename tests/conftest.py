"""What every test gets: real PostgreSQL and Valkey, and no way out of this machine."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import current_app
from django.conf import settings
from django.db import connection
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from psycopg.pq import TransactionStatus

from common.valkey import forget_client
from tests.auditor import audit, is_empty
from tests.auditor.logs import open_logbook
from tests.delivery.ledger import Ledger

# How long an example takes says how busy this machine is: by itself Hypothesis fails one of more
# than 200 ms, and a test whose examples take long to make.
hypothesis_settings.register_profile(
    "busy", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("busy")

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
    """Each test process has a Redis database of its own, and patience with it.

    The application gives Redis 0.2 s and then does without, as it should; but what a test asserts
    is what is done with one. All test processes share a server that syncs its log before it
    answers, and on a busy machine some of its answers take longer. The URL tells our worker
    processes, too.
    """
    worker = getattr(request.config, "workerinput", {}).get("workerid", "gw0")
    base = settings.REDIS_URL.rpartition("/")[0]
    number = 10 + int(worker.removeprefix("gw")) % 6
    patience = "socket_timeout=60&socket_connect_timeout=60"
    settings.REDIS_URL = f"{base}/{number}?{patience}"
    forget_client()


@pytest.fixture(autouse=True)
def _forgetful(settings: Any) -> None:
    """What one test stores, the next line of it finds."""
    settings.INTAKE_CACHE_SECONDS = 0
    settings.ROUTING_CACHE_SECONDS = 0
    # Every client of a test would list all static files first.
    settings.WHITENOISE_AUTOREFRESH = True


@pytest.fixture(autouse=True)
def _quiet_bell() -> None:
    """Rings go to a broker nobody listens to, and no test sees another's keys."""
    current_app.conf.broker_url = "memory://"
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.flushdb()


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
    is_audited = node.get_closest_marker("unaudited") is None
    try:
        rows = _breaches_in_rows(settings) if has_database and is_audited else []
    finally:
        Ledger.close_all()
    excepted = _excepted(node)
    breaches = [b for b in logbook.breaches + rows if b.partition(":")[0] not in excepted]
    if breaches and is_audited:
        pytest.fail("\n".join(["What must never be is:", *breaches[:20]]), pytrace=False)


def _breaches_in_rows(settings: Any) -> list[str]:
    if connection.in_atomic_block:
        backend = connection.connection
        if backend is None or backend.info.transaction_status == TransactionStatus.INERROR:
            return []  # the transaction has failed, and its rows with it
    else:
        connection.close_if_unusable_or_obsolete()
    taken = [entry for ledger in Ledger.opened for entry in ledger.entries()]
    if not taken and is_empty():
        return []
    return audit(ledger=taken, lease_seconds=settings.LEASE_SECONDS)


def _excepted(node: pytest.Item) -> set[str]:
    marker = node.get_closest_marker("audited")
    return marker.kwargs["except_"] if marker else set()

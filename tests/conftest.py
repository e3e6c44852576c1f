"""What every test gets: real PostgreSQL and Valkey, and no way out of this machine."""

import socket
from typing import Any

import pytest
import redis
from celery import current_app
from django.conf import settings

from common.valkey import forget_client

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

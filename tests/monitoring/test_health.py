"""`/healthz` and `/readyz`."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from django.test import Client

from common.valkey import redis_client
from monitoring import services
from monitoring.models import Heartbeat
from monitoring.services import SWEEP, beat, idle_seconds

pytestmark = pytest.mark.django_db


@contextmanager
def database_away() -> Iterator[None]:
    port = connection.settings_dict["PORT"]
    connection.close()
    connection.settings_dict["PORT"] = "1"
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict["PORT"] = port


@pytest.fixture(autouse=True)
def _migrations_unasked() -> None:
    services._assert_migrated.cache_clear()


def test_beat_is_one_row_that_moves() -> None:
    beat("x")
    Heartbeat.objects.update(at=F("at") - timedelta(hours=1))
    age = idle_seconds("x")
    assert age is not None
    assert 3_599 < age < 3_700
    beat("x")
    age = idle_seconds("x")
    assert age is not None
    assert 0 <= age < 60
    assert Heartbeat.objects.count() == 1


def test_healthz_tells_how_long_the_worker_has_been_idle() -> None:
    assert Client().get("/healthz").json() == {"status": "ok", "worker_idle_seconds": None}
    beat(SWEEP)
    Heartbeat.objects.update(at=F("at") - timedelta(seconds=90))
    response = Client().get("/healthz")
    assert response.status_code == 200
    assert 90 <= response.json()["worker_idle_seconds"] < 120
    assert not response.cookies
    assert "no-store" in response["Cache-Control"]


@pytest.mark.django_db(transaction=True)
def test_healthz_is_200_while_the_database_is_away() -> None:
    with database_away():
        response = Client().get("/healthz")
    assert response.status_code == 200
    assert response.json() == {
        "status": "ok",
        "worker_idle_seconds": None,
        "database": "unreachable",
    }


def test_healthz_before_the_first_migration_is_200() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE monitoring_heartbeat RENAME TO elsewhere")
    response = Client().get("/healthz")
    assert response.status_code == 200
    assert response.json()["database"] == "ProgrammingError"


def test_readyz_with_everything_there() -> None:
    response = Client().get("/readyz")
    assert response.status_code == 200
    assert response.json() == {
        "status": "ok",
        "database": "ok",
        "migrations": "ok",
        "redis": "ok",
    }


def test_readyz_with_a_migration_missing_is_503() -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'monitoring'")
    response = Client().get("/readyz")
    assert response.status_code == 503
    assert response.json()["migrations"] == "unapplied"


def test_readyz_asks_about_migrations_only_until_they_are_there(
    django_assert_num_queries: Any,
) -> None:
    Client().get("/readyz")
    with django_assert_num_queries(1):
        assert Client().get("/readyz").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_readyz_is_503_while_the_database_is_away() -> None:
    with database_away():
        response = Client().get("/readyz")
    assert response.status_code == 503
    assert response.json() == {
        "status": "unready",
        "database": "unreachable",
        "migrations": "unknown",
        "redis": "ok",
    }


def test_readyz_without_redis_is_degraded(settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    redis_client.cache_clear()
    try:
        response = Client().get("/readyz")
    finally:
        redis_client.cache_clear()
    assert response.status_code == 200
    assert (response.json()["status"], response.json()["redis"]) == ("degraded", "unreachable")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_head_is_answered_and_post_is_not(path: str) -> None:
    assert Client().head(path).status_code == 200
    assert Client().post(path).status_code == 405

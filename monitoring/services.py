"""Signs of life: giving them, and reading them."""

from functools import cache

from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import F
from django.db.models.functions import Extract, Now

from monitoring.models import Heartbeat

SWEEP = "sweep"
"""The heartbeat of the worker: its sweep comes every few seconds, whatever else is to do."""
REPAIRS = "repairs"
"""That of a sweep of which every step succeeded."""


def beat(name: str) -> None:
    """Say that this part of the machinery has just done its work. One statement."""
    Heartbeat.objects.bulk_create(
        [Heartbeat(name=name, at=Now())],
        update_conflicts=True,
        unique_fields=["name"],
        update_fields=["at"],
    )


def idle_seconds(name: str) -> float | None:
    """The time since the last beat by the database's clock; None when there was none."""
    age = Extract(Now() - F("at"), "epoch")
    return Heartbeat.objects.filter(name=name).values_list(age, flat=True).first()


def check_database() -> None:
    """Raises `django.db.Error` when the database does not answer."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def is_migrated() -> bool:
    """Whether every migration of this code is applied. Once true it stays true, unasked."""
    try:
        return _assert_migrated()
    except _Unmigrated:
        return False


class _Unmigrated(Exception):
    """Raised rather than returned, because `cache` keeps every answer and this one changes."""


@cache
def _assert_migrated() -> bool:
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise _Unmigrated
    return True

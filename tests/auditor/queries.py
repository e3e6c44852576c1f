"""Asking the tables."""

from typing import Any

from django.db import connection


def selected(statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """What the statement selects."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def found(statement: str, **parameters: Any) -> list[str]:
    """What a statement selects that says each breach in words."""
    return [breach for (breach,) in selected(statement, **parameters)]

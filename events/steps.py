"""Computations that ask the database and do not care how: they yield statements and are sent rows.

So a thread and an event loop can run the very same one.
"""

from collections.abc import Generator, Sequence
from typing import Any, TypeVar

import psycopg
from django.db.backends.utils import CursorWrapper

T = TypeVar("T")

Statement = tuple[str, Sequence[Any]]
Steps = Generator[Statement, Sequence[Any], T]
"""Yields statements, is sent the rows of each, and returns its result."""


def run(steps: Steps[T], cursor: CursorWrapper) -> T:
    """The result, on this thread."""
    try:
        statement = next(steps)
        while True:
            cursor.execute(*statement)
            statement = steps.send(cursor.fetchall() if cursor.description else [])
    except StopIteration as end:
        result: T = end.value
        return result


async def run_async(steps: Steps[T], cursor: psycopg.AsyncCursor[Any]) -> T:
    """The result, on the event loop."""
    try:
        statement = next(steps)
        while True:
            await cursor.execute(*statement)
            statement = steps.send(await cursor.fetchall() if cursor.description else [])
    except StopIteration as end:
        result: T = end.value
        return result

"""How PostgreSQL reads our arrays."""

import math
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import DataError, connection

from common.postgres import array

pytestmark = pytest.mark.django_db

_TEXTS = [
    "",
    "NULL",
    "null",
    None,
    "a,b",
    "{}",
    '"',
    "\\",
    '\\"',
    "'",
    "%s",
    " x ",
    "\n\r\t",
    "ä€😀",
]
_ARRAYS: list[tuple[str, list[Any]]] = [
    ("text", []),
    ("text", _TEXTS),
    ("text", ["".join(text for text in _TEXTS if text)]),
    ("int", [0, -1, 2**31 - 1, None]),
    ("bigint", [2**63 - 1, -(2**63)]),
    ("bool", [True, False, None]),
    ("float8", [0.1, -1e300, math.inf, 5e-324]),
    ("uuid", [uuid4(), UUID(int=0), None]),
    ("bytea", [b"", b"\x00\\\"'", bytes(range(256)), None]),
]


@pytest.mark.parametrize(("kind", "values"), _ARRAYS)
def test_array_reaches_the_database_as_it_was(kind: str, values: list[Any]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT %s::{kind}[], %s::{kind}[]", [array(values), values])
        ours, theirs = cursor.fetchone()
    assert ours == theirs == values


def test_array_takes_no_more_than_the_database_does() -> None:
    with pytest.raises(TypeError):
        array([Decimal(1)])
    with pytest.raises((DataError, ValueError)), connection.cursor() as cursor:
        cursor.execute("SELECT %s::text[]", [array(["a\x00b"])])

"""The corners of the JSON border that no HTTP client of the test suite can reach."""

import pytest
from django.db import OperationalError
from rest_framework.exceptions import Throttled

from common.api import ApiError, decode_json, exception_handler


@pytest.mark.parametrize("raw", [rb'[{"a": [["\u0000"]]}]', rb'{"a": [{"b\u0000": 1}]}'])
def test_nul_is_found_at_any_depth(raw: bytes) -> None:
    with pytest.raises(ApiError, match="NUL"):
        decode_json(raw)


def test_backslash_that_only_looks_like_nul_is_text() -> None:
    assert decode_json(rb'["\\u0000"]') == [r"\u0000"]


@pytest.mark.parametrize(
    "raw",
    [b'{"a": 1, "a": 2}', b'[{"b": {"a" :1, "a" :1}}]', rb'{"a": 1, "a": "\u003a"}'],
)
def test_key_that_stands_twice_is_refused(raw: bytes) -> None:
    with pytest.raises(ApiError, match="stands twice"):
        decode_json(raw)


@pytest.mark.parametrize(
    "raw", [b'{"url": "https://a.example:80/:"}', rb'{"a": "\u003a", "\u0061b": ":"}']
)
def test_colons_in_texts_are_no_keys(raw: bytes) -> None:
    assert isinstance(decode_json(raw), dict)


def test_database_away_is_a_503_with_a_time_to_come_back() -> None:
    response = exception_handler(OperationalError("host=db user=secret"), {})
    assert response is not None
    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
    assert "secret" not in str(response.data)


def test_throttled_request_hears_whole_seconds_no_shorter_than_its_wait() -> None:
    response = exception_handler(Throttled(wait=1.2), {})
    assert response is not None
    assert response.status_code == 429
    assert int(response.headers["Retry-After"]) >= 2
    assert set(response.data) == {"code", "message", "details"}


def test_error_that_is_no_answer_is_left_to_django() -> None:
    assert exception_handler(ZeroDivisionError(), {}) is None

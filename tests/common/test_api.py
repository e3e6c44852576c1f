"""The corners of the JSON border that no HTTP client of the test suite can reach."""

import io
from typing import Any

import pytest
from django.db import OperationalError
from django.http import UnreadablePostError
from rest_framework.exceptions import Throttled
from rest_framework.views import APIView  # noqa: F401 - names common.api in its class body

from common.api import ApiError, StrictJSONParser, decode_json, exception_handler


def test_body_of_exactly_the_limit_is_read(settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 7
    assert StrictJSONParser().parse(io.BytesIO(b'{"a":1}')) == {"a": 1}


def test_body_over_the_limit_is_not_read_to_its_end(settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 7
    stream = io.BytesIO(b'{"a":1}' + b" " * 100)
    with pytest.raises(ApiError) as caught:
        StrictJSONParser().parse(stream)
    assert (caught.value.status_code, caught.value.code) == (413, "too_large")
    assert stream.tell() == 8


def test_body_of_a_client_that_hung_up_is_a_client_error() -> None:
    class HungUp(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise UnreadablePostError("connection reset")

    with pytest.raises(ApiError) as caught:
        StrictJSONParser().parse(HungUp())
    assert (caught.value.status_code, caught.value.code) == (400, "unreadable")


@pytest.mark.parametrize("raw", [rb'[{"a": [["\u0000"]]}]', rb'{"a": [{"b\u0000": 1}]}'])
def test_nul_is_found_at_any_depth(raw: bytes) -> None:
    with pytest.raises(ApiError, match="NUL"):
        decode_json(raw)


def test_backslash_that_only_looks_like_nul_is_text() -> None:
    assert decode_json(rb'["\\u0000"]') == [r"\u0000"]


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

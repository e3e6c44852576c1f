"""What every API endpoint shares: strict JSON in, one error shape out, pages."""

import json
from typing import Any

import msgspec
from django.db import InterfaceError, OperationalError
from django.http import Http404
from rest_framework import exceptions, pagination, status
from rest_framework.response import Response


class ApiError(exceptions.APIException):
    """An answer that is no success: HTTP status, stable code, message, where it went wrong, and
    after how many seconds another try makes sense."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status_code: int = status.HTTP_400_BAD_REQUEST,
        details: list[dict[str, Any]] | None = None,
        wait: float | None = None,
    ) -> None:
        super().__init__(message, code)
        self.status_code = status_code
        self.code = code
        self.details = details or []
        self.wait = wait


def decode_json(raw: bytes) -> Any:
    """The document in `raw`; raises `ApiError` (`invalid_json`) for what may not be stored.

    JSON as PostgreSQL can store it and nothing else: no NaN, no other encoding than UTF-8, no lone
    surrogate, no NUL, no key twice in one object, no nesting deep enough to exhaust the stack.
    """
    try:
        document = msgspec.json.decode(raw)
        _refuse_repeated_keys(raw, document)
    except (ValueError, UnicodeError) as error:  # msgspec's own error is a ValueError
        raise ApiError("invalid_json", f"The body is not valid JSON: {error}") from None
    except RecursionError:
        raise ApiError("invalid_json", "The body is nested too deeply.") from None
    if b"\\u0000" in raw and _has_nul(document):
        raise ApiError("invalid_json", "The body contains a NUL character (\\u0000).")
    return document


def _refuse_repeated_keys(raw: bytes, document: Any) -> None:
    """Two parsers may disagree about which of two equal keys counts.

    Every member has one colon outside of texts, so when no colon was lost on the way through the
    decoder, no member was. Only a text that spells a colon as an escape needs the slow look.
    """
    if b"\\u003" not in raw and raw.count(b":") == msgspec.json.encode(document).count(b":"):
        return
    json.loads(raw, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise ValueError(f"the key {key[:50]!r} stands twice in one object")
        seen.add(key)


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any("\x00" in key or _has_nul(item) for key, item in value.items())
    if isinstance(value, list):
        return any(_has_nul(item) for item in value)
    return False


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's hook: every error leaves as `{"code", "message", "details"}`."""
    if isinstance(error, Http404):
        error = exceptions.NotFound()
    if isinstance(error, OperationalError | InterfaceError):
        body = {"code": "unavailable", "message": "The database is not available.", "details": []}
        return Response(body, status=503, headers={"Retry-After": "2"})
    if not isinstance(error, exceptions.APIException):
        return None
    headers: dict[str, str] = {}
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if wait := getattr(error, "wait", None):
        headers["Retry-After"] = str(int(wait) + 1)
    return Response(error_body(error), status=error.status_code, headers=headers)


def error_body(error: exceptions.APIException) -> dict[str, Any]:
    """`{"code", "message", "details"}` for an error."""
    if isinstance(error, ApiError):
        return {"code": error.code, "message": str(error.detail), "details": error.details}
    code = error.default_code if isinstance(error.default_code, str) else "error"
    if isinstance(error, exceptions.ValidationError):
        return {"code": "invalid", "message": "Invalid request.", "details": [error.detail]}
    return {"code": code, "message": str(error.detail), "details": []}


class Pages(pagination.PageNumberPagination):
    """`?page=` and `?page_size=` (at most 500); the answer carries `count`."""

    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 500

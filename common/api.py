"""What every API endpoint shares: strict JSON in, one error shape out, pages."""

from typing import IO, Any

import msgspec
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import Http404, UnreadablePostError
from rest_framework import exceptions, pagination, parsers, status
from rest_framework.response import Response
from rest_framework.views import set_rollback


class ApiError(exceptions.APIException):
    """An answer that is no success: HTTP status, stable code, message, where it went wrong."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status_code: int = status.HTTP_400_BAD_REQUEST,
        details: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(message, code)
        self.status_code = status_code
        self.code = code
        self.details = details or []


class StrictJSONParser(parsers.BaseParser):
    """JSON as PostgreSQL can store it and nothing else.

    No NaN, no duplicate spelling of UTF-8, no lone surrogate, no NUL, no nesting deep enough to
    exhaust the stack, and never more than `DATA_UPLOAD_MAX_MEMORY_SIZE` bytes in memory.
    """

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Any = None,
    ) -> Any:
        request = (parser_context or {}).get("request")
        if request is not None and "chunked" in request.headers.get("Transfer-Encoding", ""):
            # WSGI has no length to read by; Django would see an empty body.
            message = "Send a Content-Length; chunked bodies are not read."
            raise ApiError("length_required", message, status_code=411)
        return decode_json(_read_limited(stream))


def decode_json(raw: bytes) -> Any:
    """The document in `raw`; raises `ApiError` (`invalid_json`) for what may not be stored."""
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError("invalid_json", f"The body is not valid JSON: {error}") from None
    except RecursionError:
        raise ApiError("invalid_json", "The body is nested too deeply.") from None
    if b"\\u0000" in raw and _has_nul(document):
        raise ApiError("invalid_json", "The body contains a NUL character (\\u0000).")
    return document


def _read_limited(stream: IO[Any]) -> bytes:
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 0
    try:
        raw: bytes = stream.read(limit + 1)
    except (RequestDataTooBig, UnreadablePostError, OSError) as error:
        raise ApiError(
            "unreadable", f"The body could not be read: {type(error).__name__}"
        ) from None
    if len(raw) > limit:
        raise ApiError(
            "too_large",
            f"The body is larger than {limit} bytes.",
            status_code=status.HTTP_413_REQUEST_ENTITY_TOO_LARGE,
        )
    return raw


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
        set_rollback()
        body = {"code": "unavailable", "message": "The database is not available.", "details": []}
        return Response(body, status=503, headers={"Retry-After": "2"})
    if not isinstance(error, exceptions.APIException):
        return None
    set_rollback()
    headers: dict[str, str] = {}
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if wait := getattr(error, "wait", None):
        headers["Retry-After"] = str(int(wait) + 1)
    return Response(_error_body(error), status=error.status_code, headers=headers)


def _error_body(error: exceptions.APIException) -> dict[str, Any]:
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

"""Reading request bodies off an ASGI server: never more than a limit, never longer than a while,
and never so many at once that the process runs out of memory."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from common.api import ApiError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_MOST_IN_FLIGHT = 128 * 1024 * 1024
"""Bytes of bodies that are being read by one process."""

_in_flight = 0


def too_large(limit: int) -> ApiError:
    """The refusal of a body beyond `limit` bytes."""
    return ApiError("too_large", f"The body is larger than {limit} bytes.", status_code=413)


async def read_body(
    headers: Iterable[tuple[bytes, bytes]], receive: Receive, *, limit: int, seconds: float
) -> bytes:
    """The whole body; raises `ApiError` for one that is larger than `limit`, takes longer than
    `seconds`, ends early, or comes when too many others are being read."""
    _refuse_announced(headers, limit)
    try:
        async with asyncio.timeout(seconds):
            return await _read(receive, limit)
    except TimeoutError:
        message = f"The body did not arrive within {seconds:.0f} seconds."
        raise ApiError("timeout", message, status_code=408) from None


def _refuse_announced(headers: Iterable[tuple[bytes, bytes]], limit: int) -> None:
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise too_large(limit)


async def _read(receive: Receive, limit: int) -> bytes:
    global _in_flight
    chunks: list[bytes] = []
    size = 0
    try:
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise ApiError("unreadable", "The body ended early.")
            chunk = message.get("body", b"")
            size += len(chunk)
            _in_flight += len(chunk)
            if size > limit:
                raise too_large(limit)
            if _in_flight > _MOST_IN_FLIGHT:
                message_ = "Too many large bodies at once."
                raise ApiError("overloaded", message_, status_code=503, wait=2)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)
    finally:
        _in_flight -= size

"""What our ASGI applications share: headers in, answers out, and what they leave to Django."""

import logging
import traceback
from typing import Any

from django.conf import settings

from events.bodies import Message, Send
from events.exchange import Reply

logger = logging.getLogger(__name__)


def headers_of(scope: Message) -> dict[str, str]:
    """The request's headers, their names in lower case."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def write_reply(reply: Reply, send: Send) -> None:
    """Send the answer whole."""
    headers: list[tuple[bytes, bytes]] = [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()
    ]
    headers.append((b"content-length", str(len(reply.body)).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


def is_redirected(scope: Message) -> bool:
    """Whether Django would redirect the request to https."""
    if not settings.SECURE_SSL_REDIRECT or scope.get("scheme") == "https":
        return False
    trusted: Any = settings.SECURE_PROXY_SSL_HEADER
    if not trusted:
        return True
    name = trusted[0].removeprefix("HTTP_").replace("_", "-").lower().encode()
    return (name, trusted[1].encode()) not in scope["headers"]


def log_failure(error: Exception) -> None:
    """Log what nobody foresaw by its type and place: its text may quote the request."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{place.filename}:{place.lineno}"
    logger.error("intake failed", extra={"error": type(error).__name__, "where": where})

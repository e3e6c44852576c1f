"""The ASGI application: events and webhooks come in on the event loop, everything else is Django on
threads.

Django is handed requests whose body has arrived, so that a slow client cannot hold a thread, and
a chunked body has a length like any other.
"""

import os
from typing import Any, cast

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "emailauto.settings")

from a2wsgi import WSGIMiddleware
from django.conf import settings

from common.api import ApiError
from emailauto.wsgi import application as django
from events.asgi import Intake as EventIntake
from events.bodies import Message, Receive, Send, read_body
from events.http import write_reply
from events.intake import error_reply
from webhooks.asgi import Intake as WebhookIntake

_BODY_SECONDS = 60.0
"""A person may upload something over a slow line."""
_THREADS = 8


class Application:
    """Everything this project serves over HTTP."""

    def __init__(self) -> None:
        self._intakes = (EventIntake(), WebhookIntake())
        # Its types spell out each ASGI message; ours say only that they are messages.
        self._pages: Any = WSGIMiddleware(cast("Any", django), workers=_THREADS)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return
        for intake in self._intakes:
            if intake.serves(scope):
                await intake(scope, receive, send)
                return
        await self._page(scope, receive, send)

    async def _page(self, scope: Message, receive: Receive, send: Send) -> None:
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 0
        try:
            query = scope["query_string"]
            if not query.isascii() or b"%00" in query:  # PostgreSQL knows no NUL
                raise ApiError("invalid", "The query string is no percent-encoded text.")
            body = await read_body(scope["headers"], receive, limit=limit, seconds=_BODY_SECONDS)
        except ApiError as error:
            await write_reply(error_reply(error), send)
        else:
            await self._pages(_with_length(scope, len(body)), _replayed(body), send)


def _with_length(scope: Message, length: int) -> Message:
    """The request as it would have come with its body's length announced.

    Names with an underscore are left out: WSGI cannot tell them from those with a dash, and the
    proxy in front has only overwritten the latter.
    """
    dropped = (b"content-length", b"transfer-encoding")
    headers = [
        (name, value)
        for name, value in scope["headers"]
        if name not in dropped and b"_" not in name
    ]
    if length:
        headers.append((b"content-length", str(length).encode()))
    return {**scope, "headers": headers}


def _replayed(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


application = Application()

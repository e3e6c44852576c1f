"""Webhooks on an event loop: a call costs its proof, its reading and its share of a commit.

What takes long is done on threads: large bodies, and proofs for which somebody has to be asked.
"""

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.utils.datastructures import CaseInsensitiveMapping

from common.clock import now
from events.bodies import Message, Receive, Send, read_body
from events.exchange import Reply
from events.group_commit import GroupCommit
from events.http import headers_of, is_redirected, write_reply
from webhooks.adapters import CannotVerify
from webhooks.intake import KEPT, Call, admit, read, refusal
from webhooks.providers import ADAPTERS
from webhooks.receipts import LANE, Kept, NewReceipt, keep, require_kept

T = TypeVar("T")

_PATH = re.compile(r"/webhooks/([a-z]+)(?:/([0-9a-f]{40}))?/?")
# Beyond this a body is read on a thread: an array of a thousand would keep everybody waiting.
_SMALL = 32 * 1024
_BODY_SECONDS = 10.0
_SECONDS = 10.0
"""After which a provider is told to call again, whatever the database or the network does."""
_MOST_ASKING = 64
"""Calls that may wait for the network, each with its body in memory."""


class Intake:
    """The ASGI application of `/webhooks/<provider>/`, with or without a token."""

    def __init__(self) -> None:
        self._receipts: GroupCommit[NewReceipt, Kept] = GroupCommit(keep, LANE)
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="webhook")
        self._askers = ThreadPoolExecutor(4, thread_name_prefix="webhook-proof")
        self._asking = 0

    def serves(self, scope: Message) -> bool:
        """Whether the request is a call of a provider. What Django would redirect to https, it
        may."""
        return (
            scope["type"] == "http"
            and scope["method"] == "POST"
            and _place(scope)[0] in ADAPTERS
            and not is_redirected(scope)
        )

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        provider, token = _place(scope)
        try:
            reply = await self._reply(provider, token, scope, receive)
        except Exception as error:  # noqa: BLE001 - whatever it is, the provider has to call again
            reply = refusal(provider, error)
        await write_reply(reply, send)

    async def _reply(self, provider: str, token: str, scope: Message, receive: Receive) -> Reply:
        headers = CaseInsensitiveMapping(headers_of(scope))
        limit = admit(provider, headers, token).max_body
        body = await read_body(scope["headers"], receive, limit=limit, seconds=_BODY_SECONDS)
        call = Call(provider, headers, body, now())
        async with asyncio.timeout(_SECONDS):
            receipts = await self._read(call)
            require_kept(await self._receipts.add(receipts, len(body)))
        return KEPT

    async def _read(self, call: Call) -> list[NewReceipt]:
        if ADAPTERS[call.provider].waits(call.body):
            return await self._ask(lambda: read(call))
        if len(call.body) > _SMALL:
            return await _on(self._readers, lambda: read(call))
        return read(call)

    async def _ask(self, function: Callable[[], T]) -> T:
        if self._asking >= _MOST_ASKING:
            raise CannotVerify("Too many calls wait for a proof.")
        self._asking += 1
        try:
            return await _on(self._askers, function)
        finally:
            self._asking -= 1


async def _on(threads: ThreadPoolExecutor, function: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, function)


def _place(scope: Message) -> tuple[str, str]:
    """The provider and the token in the path, or nothing for either."""
    found = _PATH.fullmatch(scope["path"])
    return (found[1], found[2] or "") if found else ("", "")

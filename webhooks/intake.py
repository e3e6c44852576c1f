"""From a provider's call to its answer: is it genuine, what does it tell, what is it told."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from django.db import Error

from common.api import ApiError, error_body
from common.clock import now
from events.exchange import Reply
from events.http import log_failure
from webhooks.adapters import Adapter, CannotVerify, Event, NotAuthentic
from webhooks.authenticity import is_own_path
from webhooks.providers import ADAPTERS
from webhooks.reading import Malformed
from webhooks.receipts import NewReceipt, keep_receipts, whole_id

logger = logging.getLogger(__name__)

KEPT = Reply.of(200, {"status": "kept"})

_RETRY_AFTER = "5"
# What is wrong stands in the log; whoever is trying out forgeries need not read it.
_REFUSED = "Wrong or missing credentials."
# Of an `ApiError`: nothing is wrong with what was called, or it never came.
_NOT_THEIR_FAULT = (408, 503)

# It is away, or does not answer: the database, Amazon, the provider itself.
_FORESEEN = (ApiError, CannotVerify, Error, psycopg.Error, OSError)


@dataclass(frozen=True, slots=True)
class Call:
    """A call whose body has been read whole. `headers` take names in any case."""

    provider: str
    headers: Mapping[str, str]
    body: bytes
    received_at: datetime


def admit(provider: str, headers: Mapping[str, str], token: str = "") -> Adapter:
    """How the provider's calls are read; raises `NotAuthentic` when the body is not worth reading.
    `token` is what stands behind the provider in the path, or nothing.

    To be asked before it is: a stranger must not hold anything by sending slowly.
    """
    adapter = ADAPTERS[provider]
    if token and not is_own_path(provider, token):
        raise NotAuthentic("Its path is not the one of this provider.")
    if not adapter.admits(headers):
        raise NotAuthentic("It brings no proof, or its provider is not set up here.")
    return adapter


def read(call: Call) -> list[NewReceipt]:
    """What the call tells; raises `NotAuthentic`, `CannotVerify` or `Malformed`. No database; the
    network only where the adapter's `waits` says so.

    An authentic call in a shape nobody has thought of is kept whole: some providers throw away
    what is refused, and what it says can still be read by a later version.
    """
    adapter = ADAPTERS[call.provider]
    adapter.verify(call.headers, call.body, call.received_at)
    try:
        events = adapter.events(call.headers, call.body)
    except Malformed as error:
        if not call.body.strip():
            raise
        logger.warning(
            "webhook of an unknown shape", extra={"provider": call.provider, "why": str(error)}
        )
        events = [Event(whole_id(call.body), call.body)]
    content_type = call.headers.get("Content-Type", "")[:100]
    return [NewReceipt(call.provider, event.id, event.body, content_type) for event in events]


def answer(
    provider: str,
    headers: Mapping[str, str],
    read_body: Callable[[int], bytes],
    token: str = "",
) -> Reply:
    """The whole way, on the caller's thread. `read_body` takes the most bytes there may be."""
    try:
        adapter = admit(provider, headers, token)
        call = Call(provider, headers, read_body(adapter.max_body), now())
        keep_receipts(read(call))
    except Exception as error:  # noqa: BLE001 - whatever it is, the provider has to call again
        return refusal(provider, error)
    return KEPT


def refusal(provider: str, error: Exception) -> Reply:
    """The answer to a call that was not kept.

    One that is not proven to be the provider's gets `401`, never `403`: Postmark takes that for
    "stop". What is not the provider's fault gets the status after which it calls again.
    """
    if isinstance(error, NotAuthentic):
        logger.warning("webhook refused", extra={"provider": provider, "why": str(error)})
        refused = ApiError("authentication_failed", _REFUSED, status_code=401)
        return _reply(refused, www_authenticate='Basic realm="webhooks"')
    if isinstance(error, Malformed):
        logger.warning("webhook malformed", extra={"provider": provider, "why": str(error)})
        return _reply(ApiError("invalid", f"The body is {error}."))
    if isinstance(error, ApiError) and error.status_code not in _NOT_THEIR_FAULT:
        return _reply(error)
    if not isinstance(error, _FORESEEN):
        log_failure(error)
    # Without its text, which may quote the call.
    extra: dict[str, Any] = {"provider": provider, "error": type(error).__name__}
    logger.warning("webhook not kept", extra=extra)
    status, message = ADAPTERS[provider].failure_status, "Nothing can be kept just now. Call again."
    return _reply(ApiError("unavailable", message, status_code=status), retry_after=_RETRY_AFTER)


def _reply(error: ApiError, **headers: str) -> Reply:
    return Reply.of(error.status_code, error_body(error), **headers)

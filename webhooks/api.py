"""`POST /webhooks/<provider>/`: what providers call when something came back."""

import logging
from typing import Any, NoReturn

from django.db import Error
from django.http import Http404, HttpRequest, UnreadablePostError
from rest_framework import exceptions, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.api import ApiError
from common.clock import now
from webhooks.adapters import Adapter, CannotVerify, NotAuthentic
from webhooks.providers import ADAPTERS
from webhooks.reading import Malformed
from webhooks.services import keep_receipts

logger = logging.getLogger(__name__)

_RETRY_AFTER = 5.0
# What is wrong stands in the log; whoever is trying out forgeries need not read it.
_REFUSED = "Wrong or missing credentials."


class WebhookView(APIView):
    """Keeps what the call tells and answers `200` once it is committed; what it means is a task's
    affair.

    A call that is not proven to be the provider's gets `401`, never `403`: Postmark takes that for
    "stop". What is our fault gets the status after which the provider calls again.
    """

    authentication_classes = ()
    permission_classes = ()
    http_method_names = ["post"]
    schema = None

    def get_authenticate_header(self, request: Request) -> str:
        return 'Basic realm="webhooks"'

    def post(self, request: Request, provider: str) -> Response:
        adapter = ADAPTERS.get(provider)
        if adapter is None:
            raise Http404
        # Before a byte of the body is read: a stranger must not hold a thread by sending slowly.
        if not adapter.admits(request.headers):
            raise exceptions.AuthenticationFailed(_REFUSED)
        # Of the plain request: `request.data` would parse the body and throw the bytes away.
        body = _read_body(request._request, adapter.max_body)
        try:
            adapter.verify(request.headers, body, now())
            keep_receipts(provider, adapter.events(request.headers, body), request.content_type)
        except NotAuthentic as error:
            logger.warning("webhook refused", extra={"provider": provider, "why": str(error)})
            raise exceptions.AuthenticationFailed(_REFUSED) from None
        except Malformed as error:
            raise ApiError("invalid", f"The body is {error}.") from None
        except (CannotVerify, Error) as error:
            _call_again(provider, adapter, error)
        return Response({"status": "kept"})


def _call_again(provider: str, adapter: Adapter, error: Exception) -> NoReturn:
    """It may well be the provider's; the fault is ours, or the network's."""
    extra: dict[str, Any] = {"provider": provider, "error": type(error).__name__}
    logger.warning("webhook not kept", extra=extra)
    raise ApiError(
        "unavailable",
        "Nothing can be kept at the moment. Call again.",
        status_code=adapter.failure_status,
        wait=_RETRY_AFTER,
    ) from error


def _read_body(request: HttpRequest, most: int) -> bytes:
    try:
        body = request.read(most + 1)
    except (UnreadablePostError, OSError):
        raise ApiError("unreadable", "The body could not be read.") from None
    if len(body) > most:
        raise ApiError(
            "too_large",
            f"The body is larger than {most} bytes.",
            status_code=status.HTTP_413_REQUEST_ENTITY_TOO_LARGE,
        )
    return body

"""`POST /webhooks/<provider>/`: what providers call when something came back."""

from django.http import Http404, HttpRequest, UnreadablePostError
from rest_framework import exceptions, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.api import ApiError
from webhooks.adapters import Malformed
from webhooks.providers import ADAPTERS
from webhooks.services import keep_receipt

MAX_BODY = 1024 * 1024


class WebhookView(APIView):
    """Keeps the call and answers `200` once it is committed; what it means is a task's affair.

    A call without valid credentials gets `401`, never `403`: Postmark takes that for "stop".
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
        if not adapter.is_authentic(request.headers):
            raise exceptions.AuthenticationFailed("Wrong or missing credentials.")
        # Of the plain request: `request.data` would parse the body and throw the bytes away.
        body = _read_body(request._request)
        try:
            event_id = adapter.event_id(body)
        except Malformed as error:
            raise ApiError("invalid", f"The body is {error}.") from None
        keep_receipt(provider, event_id, body, request.content_type or "")
        return Response({"status": "kept"})


def _read_body(request: HttpRequest) -> bytes:
    try:
        body = request.read(MAX_BODY + 1)
    except (UnreadablePostError, OSError):
        raise ApiError("unreadable", "The body could not be read.") from None
    if len(body) > MAX_BODY:
        raise ApiError(
            "too_large",
            f"The body is larger than {MAX_BODY} bytes.",
            status_code=status.HTTP_413_REQUEST_ENTITY_TOO_LARGE,
        )
    return body

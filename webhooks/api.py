"""`POST /webhooks/<provider>/`, with or without a token, as a view: what answers under WSGI.

`webhooks.asgi` gives the same answers, faster.
"""

from functools import partial

from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from rest_framework.request import Request
from rest_framework.views import APIView

from common.api import ApiError
from events.bodies import too_large
from webhooks.intake import answer
from webhooks.providers import ADAPTERS


class WebhookView(APIView):
    """Hands the call to the intake as it is."""

    authentication_classes = ()
    permission_classes = ()
    http_method_names = ["post"]
    schema = None

    def post(self, request: Request, provider: str, token: str = "") -> HttpResponse:
        if provider not in ADAPTERS:
            raise Http404
        # Of the plain request: `request.data` would parse the body and throw the bytes away.
        read_body = partial(_read_body, request._request)
        reply = answer(provider, request.headers, read_body, token)
        return HttpResponse(reply.body, status=reply.status, headers=dict(reply.headers))


def _read_body(request: HttpRequest, most: int) -> bytes:
    try:
        body = request.read(most + 1)
    except (UnreadablePostError, OSError):
        raise ApiError("unreadable", "The body could not be read.") from None
    if len(body) > most:
        raise too_large(most)
    return body

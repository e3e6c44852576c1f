"""The pages behind the links in a mail. No login, no cookies, no scripts; a GET changes nothing,
because mail scanners follow every link."""

import logging
import secrets
from typing import Any

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from common.addresses import mask
from common.signing import read_uuid
from delivery.headers import UNSUBSCRIBE
from delivery.models import Message, Sender
from preferences.services import unsubscribe
from suppression.states import MARKETING, topic_scope

logger = logging.getLogger(__name__)


# Without a session there is nothing a forged request could borrow: the token is the permission.
@method_decorator(csrf_exempt, name="dispatch")
class UnsubscribeView(View):
    """`/u/<token>`: the page with the buttons, what they do, and RFC 8058's one-click POST."""

    http_method_names = ["get", "head", "post"]

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return super().dispatch(request, *args, **kwargs)
        except (OperationalError, InterfaceError):
            # Said clearly, so that a mailbox provider asks again and a person knows to.
            logger.warning("unsubscribe while the database is away", exc_info=True)
            return _page("unavailable", status=503, headers={"Retry-After": "60"})

    def get(self, request: HttpRequest, token: str) -> HttpResponse:
        message = _find(token)
        if message is None:
            return _page("unknown", status=404)
        return _page("unsubscribe", _facts(message))

    def post(self, request: HttpRequest, token: str) -> HttpResponse:
        message = _find(token)
        if message is None:
            return _page("unknown", status=404)
        if request.POST.get("List-Unsubscribe") == "One-Click":
            unsubscribe(message, MARKETING, source="one-click")
            return _private(HttpResponse("Unsubscribed.\n", content_type="text/plain"))
        choice = request.POST.get("scope")
        if choice == "topic" and message.topic is not None:
            unsubscribe(message, topic_scope(message.topic.key), source="unsubscribe page")
        elif choice == "all":
            unsubscribe(message, MARKETING, source="unsubscribe page")
        else:
            return _page("unsubscribe", _facts(message), status=400)
        return _page("done", _facts(message) | {"choice": choice})


def _find(token: str) -> Message | None:
    message_id = read_uuid(UNSUBSCRIBE, token)
    if message_id is None:
        return None
    rows = Message.objects.defer("context").select_related("contact", "topic", "sender")
    return rows.filter(pk=message_id).first()


def _facts(message: Message) -> dict[str, Any]:
    sender = message.sender or Sender.objects.filter(is_default=True).first()
    return {
        "shop": sender.name if sender is not None else "",
        "topic": message.topic,
        "address": mask(message.email or message.contact.email),
    }


def _page(
    name: str,
    facts: dict[str, Any] | None = None,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> HttpResponse:
    # Rendered without the request: no session, no CSRF cookie, no user can come into it.
    nonce = secrets.token_urlsafe(16)
    html = render_to_string(f"preferences/{name}.html", {**(facts or {}), "nonce": nonce})
    return _private(HttpResponse(html, status=status, headers=headers), nonce)


def _private(response: HttpResponse, nonce: str = "") -> HttpResponse:
    """The URL is a personal token: nobody may learn, keep, index or frame it."""
    style = f"'nonce-{nonce}'" if nonce else "'none'"
    response["Referrer-Policy"] = "no-referrer"
    response["Cache-Control"] = "no-store"
    response["X-Robots-Tag"] = "noindex, nofollow"
    response["X-Frame-Options"] = "DENY"
    response["Content-Security-Policy"] = (
        f"default-src 'none'; style-src {style}; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )
    return response

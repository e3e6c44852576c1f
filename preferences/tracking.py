"""`/t/…`: where the tracked links and pixels of mails lead. Nobody's consent changes here, and
nobody learns from an answer whether a pixel's token is one."""

import base64
import logging
import secrets
from uuid import UUID

from django.db import DatabaseError, InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils import translation
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from common.bell import ring_later
from common.clock import now
from delivery.destinations import location
from delivery.link_store import url_of
from delivery.tracking import read_click, read_open
from delivery.visits import SETTLE_SECONDS, Request, record_visit
from preferences.languages import page_language
from preferences.pages import look

logger = logging.getLogger(__name__)

_PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")
_PREFETCHES = ("Purpose", "Sec-Purpose", "X-Purpose", "X-Moz")


@csrf_exempt
@require_safe
def click(request: HttpRequest, token: str) -> HttpResponse:
    """On to where the link leads; 404 when we have not made it."""
    found = read_click(token)
    if found is None:
        return _page(request, "unknown", status=404)
    message, link = found
    try:
        url = url_of(link)
    except (OperationalError, InterfaceError):
        logger.warning("click while the database is away", exc_info=True)
        response = _page(request, "unavailable", status=503)
        response["Retry-After"] = "60"
        return response
    if url is None:
        return _page(request, "unknown", status=404)
    _record(request, message, link)
    # Not Django's redirect: where this may lead was decided when the mail was made.
    response = HttpResponse(status=302)
    response["Location"] = location(url)
    return _private(response)


@csrf_exempt
@require_safe
def pixel(request: HttpRequest, token: str) -> HttpResponse:
    """The same picture for every token there could be."""
    message = read_open(token)
    if message is not None:
        _record(request, message, None)
    return _private(HttpResponse(_PIXEL, content_type="image/gif"))


def _record(request: HttpRequest, message: UUID, link: UUID | None) -> None:
    try:
        is_kept = record_visit(message, link, _said_by(request), at=now())
    except (DatabaseError, InterfaceError):
        # Who follows a link wants to get there, whether or not it can be counted.
        logger.warning("visit not kept", extra={"message_uuid": str(message)}, exc_info=True)
        return
    if is_kept:
        ring_later("feedback", SETTLE_SECONDS + 1)


def _said_by(request: HttpRequest) -> Request:
    headers = request.headers
    purposes = " ".join(headers.get(name, "") for name in _PREFETCHES).lower()
    return Request(
        user_agent=headers.get("User-Agent", ""),
        is_head=request.method == "HEAD",
        is_prefetch="prefetch" in purposes or "preview" in purposes,
    )


def _page(request: HttpRequest, name: str, *, status: int) -> HttpResponse:
    nonce = secrets.token_urlsafe(16)
    language = page_language("", request.headers.get("Accept-Language", ""))
    with translation.override(language):
        context = {**look(), "nonce": nonce, "logo_url": ""}
        html = render_to_string(f"preferences/tracking/{name}.html", context)
    response = _private(HttpResponse(html, status=status), nonce)
    response["Content-Language"] = language
    return response


def _private(response: HttpResponse, nonce: str = "") -> HttpResponse:
    style = f"style-src 'nonce-{nonce}'; " if nonce else ""
    response["Referrer-Policy"] = "no-referrer"
    response["Cache-Control"] = "no-store"
    response["X-Robots-Tag"] = "noindex, nofollow"
    response["Content-Security-Policy"] = (
        f"default-src 'none'; {style}base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return response

"""The pages behind the links in a mail: no login, no cookies, no scripts; a GET changes nothing,
because mail scanners follow every link."""

import logging
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings
from django.core.exceptions import BadRequest, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.utils import translation
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from common.addresses import mask
from common.signing import read_uuid
from delivery.models import Message, Sender
from preferences.flood import seconds_to_wait
from preferences.languages import page_language
from preferences.proof import Proof

logger = logging.getLogger(__name__)

_UNREADABLE = (BadRequest, MultiPartParserError, SuspiciousOperation, UnreadablePostError)
_DARK_TEXT, _LIGHT_TEXT = "#000000", "#ffffff"


# Without a session there is nothing a forged request could borrow: the token is the permission.
@method_decorator(csrf_exempt, name="dispatch")
class RecipientPage(View):
    """A page for whoever holds the token of a message. A subclass names its `purpose` and answers
    `show` and `act`, each with the message, and `page` for its words."""

    http_method_names = ["get", "head", "post"]
    purpose = ""
    message: Message
    language = "en"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        accepted = request.headers.get("Accept-Language", "")
        self.language = page_language("", accepted)
        try:
            return super().dispatch(request, *args, **kwargs)
        except (OperationalError, InterfaceError):
            # Said clearly, so that a mailbox provider asks again and a person knows to.
            logger.warning("recipient page while the database is away", exc_info=True)
            facts = {"is_act": request.method == "POST"}
            return self.page("unavailable", facts, status=503, headers={"Retry-After": "60"})
        except _UNREADABLE:
            return self.page("unreadable", status=400)

    def get(self, request: HttpRequest, token: str) -> HttpResponse:
        message_id = read_uuid(self.purpose, token)
        wait = self._wait(message_id, is_act=False)
        if wait:
            return self._busy(wait)
        return self.show() if self._find(message_id) else self.page("unknown", status=404)

    def post(self, request: HttpRequest, token: str) -> HttpResponse:
        message_id = read_uuid(self.purpose, token)
        wait = self._wait(message_id, is_act=True)
        if not self._find(message_id):
            return self.page("unknown", status=404)
        return self._busy(wait) if wait and not self.is_first_no() else self.act()

    def is_first_no(self) -> bool:
        """Whether the person says no with this for the first time: that is heard however often the
        link was used by whomever."""
        return False

    def show(self) -> HttpResponse:
        raise NotImplementedError

    def act(self) -> HttpResponse:
        raise NotImplementedError

    def _wait(self, message_id: UUID | None, *, is_act: bool) -> int:
        if message_id is None:
            return 0
        return seconds_to_wait(self.purpose, message_id, is_act=is_act)

    def _busy(self, wait: int) -> HttpResponse:
        return self.page("busy", status=429, headers={"Retry-After": str(wait)})

    def _find(self, message_id: UUID | None) -> bool:
        """Whether there is this message; then it is `self.message`."""
        if message_id is None:
            return False
        rows = Message.objects.defer("context").select_related("contact", "topic", "sender")
        message = rows.filter(pk=message_id).first()
        if message is None:
            return False
        self.message = message
        accepted = self.request.headers.get("Accept-Language", "")
        self.language = page_language(message.contact.locale, accepted)
        return True

    def page(
        self,
        name: str,
        facts: Mapping[str, Any] | None = None,
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> HttpResponse:
        """The template of this name in the person's language."""
        # Rendered without the request: no session, no CSRF cookie, no user can come into it.
        nonce = secrets.token_urlsafe(16)
        with translation.override(self.language):
            context = {**look(), **self._sender(), **(facts or {}), "nonce": nonce}
            html = render_to_string(f"preferences/{name}.html", context)
        response = private(HttpResponse(html, status=status, headers=headers), nonce)
        response["Content-Language"] = self.language
        return response

    def proof(self, page: str) -> Proof:
        """What is written down about a choice made here."""
        ip = self.request.META.get("REMOTE_ADDR", "") if settings.EMAILAUTO.pages.record_ip else ""
        return Proof(self.message.pk, page, self.language, str(ip))

    def _sender(self) -> dict[str, Any]:
        message = getattr(self, "message", None)
        if message is None:
            return {}
        sender = message.sender or Sender.objects.filter(is_default=True).first()
        return {
            "shop": sender.name if sender is not None else "",
            "topic": message.topic,
            "address": mask(message.email or message.contact.email),
        }


def private(response: HttpResponse, nonce: str = "") -> HttpResponse:
    """The URL is a personal token: nobody may learn, keep, index or frame it."""
    style = f"'nonce-{nonce}'" if nonce else "'none'"
    logo = urlsplit(settings.EMAILAUTO.pages.logo_url)
    images = f"img-src {logo.scheme}://{logo.netloc}; " if logo.netloc else ""
    response["Referrer-Policy"] = "no-referrer"
    response["Cache-Control"] = "no-store"
    response["X-Robots-Tag"] = "noindex, nofollow"
    response["X-Frame-Options"] = "DENY"
    response["Content-Security-Policy"] = (
        f"default-src 'none'; style-src {style}; {images}form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )
    return response


def look() -> dict[str, Any]:
    """What every page is made with: language and direction, colours, the shop's links."""
    pages = settings.EMAILAUTO.pages
    language = translation.get_language() or "en"
    return {
        "language": language,
        "direction": "rtl" if translation.get_language_bidi() else "ltr",
        "accent": pages.accent,
        "accent_ink": readable_on(pages.accent) if pages.accent else "",
        "logo_url": pages.logo_url,
        "privacy_url": pages.privacy_url,
    }


def readable_on(colour: str) -> str:
    """Black or white, whichever has more contrast to `#rrggbb`: at least 4.58 to 1 in any case
    (WCAG 2.2, 1.4.3 asks for 4.5)."""
    red, green, blue = (_linear(int(colour[i : i + 2], 16) / 255) for i in (1, 3, 5))
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    is_light = (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05)
    return _DARK_TEXT if is_light else _LIGHT_TEXT


def _linear(channel: float) -> float:
    if channel <= 0.04045:
        return channel / 12.92
    return float(((channel + 0.055) / 1.055) ** 2.4)

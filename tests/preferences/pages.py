"""What the tests of the recipients' pages share."""

from typing import Any

from bleach._vendor import html5lib
from django.conf import settings
from django.http import HttpResponse
from django.test import Client

from delivery.links import link
from delivery.models import Message

FORM = "application/x-www-form-urlencoded"


def strict_client() -> Client:
    """A browser that comes with nothing, against a server that checks CSRF."""
    return Client(enforce_csrf_checks=True)


def path_of(message: Message, purpose: str) -> str:
    return link(purpose, message.pk).removeprefix(settings.PUBLIC_URL)


def get(message: Message, purpose: str, **options: Any) -> HttpResponse:
    return strict_client().get(path_of(message, purpose), **options)


def post(message: Message, purpose: str, data: Any, **options: Any) -> HttpResponse:
    return strict_client().post(path_of(message, purpose), data, **options)


def filled_in(response: HttpResponse) -> dict[str, list[str]]:
    """What a browser would send if somebody just pressed the first form's main button."""
    form = html5lib.parse(response.content.decode(), namespaceHTMLElements=False).find(".//form")
    sent: dict[str, list[str]] = {}
    for field in form.iter():
        if field.tag not in ("input", "select") or "disabled" in field.attrib:
            continue
        value = field.get("value", "on")
        if field.tag == "select":
            options = list(field.iter("option"))
            chosen = next((o for o in options if "selected" in o.attrib), options[0])
            value = chosen.get("value", "")
        elif field.get("type") == "checkbox" and "checked" not in field.attrib:
            continue
        sent.setdefault(field.get("name", ""), []).append(value)
    return sent


def assert_private(response: HttpResponse) -> None:
    assert response["Referrer-Policy"] == "no-referrer"
    assert response["Cache-Control"] == "no-store"
    assert response["X-Robots-Tag"] == "noindex, nofollow"
    assert response["X-Frame-Options"] == "DENY"
    assert "default-src 'none'" in response["Content-Security-Policy"]
    assert "script-src" not in response["Content-Security-Policy"]
    assert not response.cookies
    assert "Cookie" not in response.get("Vary", "")

"""Templates and data for the tests of content."""

import itertools
from functools import cache
from typing import Any

import msgspec
import pytest
from django.conf import settings

from common.clock import now
from content.models import TemplateVersion
from content.rendering import RenderedEmail, render

SENDER = {
    "name": "Lighthouse Goods",
    "email": "hello@example.com",
    "postal_address": "1 Harbour Road",
}


def version(html: str = "<p>x</p>", *, subject: str = "Hello", **fields: Any) -> TemplateVersion:
    """An unsaved draft."""
    return TemplateVersion(subject=subject, html=html, **fields)


def rendered(
    html: str = "<p>x</p>", data: dict[str, Any] | None = None, **fields: Any
) -> RenderedEmail:
    return render(version(html, **fields), data or {})


def body(html: str, data: dict[str, Any] | None = None) -> str:
    """What the template's own HTML became, without the frame."""
    mail = render(_compiled_once(f"<i>[</i>{html}<i>]</i>"), data or {})
    return mail.html.split("<i>[</i>")[1].split("<i>]</i>")[0]


def configure_templates(monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """The `templates` section of the configuration, changed for one test."""
    section = msgspec.structs.replace(settings.EMAILAUTO.templates, **options)
    changed = msgspec.structs.replace(settings.EMAILAUTO, templates=section)
    monkeypatch.setattr(settings, "EMAILAUTO", changed)


_keys = itertools.count(-1, -1)


@cache
def _compiled_once(html: str) -> TemplateVersion:
    # Only what is published is kept compiled; no row has a negative key.
    return version(html, pk=next(_keys), published_at=now(), text="x")


def in_text(source: str, data: dict[str, Any] | None = None) -> str:
    """What a text part became."""
    return rendered("<p>x</p>", data, text=f"[{source}]").text.strip()[1:-1]

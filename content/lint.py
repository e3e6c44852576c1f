"""What stands against publishing a version."""

from typing import Any

from content.exceptions import RenderError
from content.models import TemplateVersion
from content.rendering import compile_part, render

Problem = tuple[str, str]

_PARTS = ("subject", "preheader", "html", "text")
# Gmail shows about 102 KB and hides the rest, the unsubscribe link with it.
_LARGEST_HTML = 100_000

_ORDER = {
    "id": "A-1042",
    "total": "122.50",
    "currency": "EUR",
    "items": [
        {"name": "Storm lamp", "quantity": 1, "price": "79.00"},
        {"name": "Enamel mug, navy", "quantity": 3, "price": "43.50"},
    ],
}
_PAYLOAD = {
    "email": "ada@example.com",
    "name": "Ada Lovelace",
    "cart_id": "c-77",
    "order": _ORDER,
}
SAMPLE_CONTEXT: dict[str, Any] = {
    **_PAYLOAD,
    "payload": _PAYLOAD,
    "user": {"id": "u-1", "name": "Ada Lovelace", "email": "ada@example.com"},
    "contact": {"name": "Ada Lovelace", "email": "ada@example.com", "attributes": {}},
    "event": {"id": "e-1", "type": "order.placed", "occurred_at": "2026-03-01T12:00:00+00:00"},
    "sender": {
        "name": "Lighthouse Goods",
        "email": "hello@example.com",
        "postal_address": "1 Harbour Road, 12345 Seatown",
    },
    "topic": {"name": "News"},
    "unsubscribe_url": "https://mail.example.com/u/sample",
    "preferences_url": "https://mail.example.com/p/sample",
    "view_url": "https://mail.example.com/v/sample",
    "action_url": "https://mail.example.com/c/sample",
    "reason_line": "",
}
"""Data as a shop sends it, for previews and for trying a version before it is published."""


def find_problems(version: TemplateVersion) -> list[Problem]:
    """(field, message) of everything that is wrong; empty when the version may be published.

    Every part has to compile, and the whole has to render with sample data as well as with none:
    an event that lacks something must not stop a mail.
    """
    problems = [] if version.html.strip() else [("html", "is empty")]
    problems += [problem for part in _PARTS if (problem := _compile_problem(version, part))]
    if problems:
        return problems
    return [
        *_render_problems(version, {}, "without data"),
        *_render_problems(version, SAMPLE_CONTEXT, "with sample data"),
    ]


def _compile_problem(version: TemplateVersion, part: str) -> Problem | None:
    try:
        compile_part(part, getattr(version, part))
    except RenderError as error:
        return (part, error.message)
    return None


def _render_problems(
    version: TemplateVersion, data: dict[str, Any], with_what: str
) -> list[Problem]:
    try:
        rendered = render(version, data)
    except RenderError as error:
        return [(error.field, f"{error.message} ({with_what})")]
    size = len(rendered.html.encode())
    if size > _LARGEST_HTML:
        return [("html", f"has {size} bytes {with_what}, {_LARGEST_HTML} are allowed")]
    return []

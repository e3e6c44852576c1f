"""Labels, times, JSON and other people's documents, as the admin shows them."""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta

from django.http import HttpResponse, QueryDict
from django.utils.html import format_html
from django.utils.safestring import SafeString

from common.clock import now

_DOCUMENT_POLICY = (
    "default-src 'none'; img-src * data:; style-src 'unsafe-inline'; form-action 'none'; "
    "frame-ancestors 'self'; sandbox{popups}"
)
_POPUPS = " allow-popups allow-popups-to-escape-sandbox"


def badge(text: object, tone: str = "grey") -> SafeString:
    """A coloured label; tones: green, blue, amber, red, grey."""
    return format_html('<span class="ea-badge ea-{}">{}</span>', tone, text)


def query(values: Mapping[str, object]) -> str:
    """`?a=1&b=2` for a link into a filtered list."""
    parameters = QueryDict(mutable=True)
    for name, value in values.items():
        parameters[name] = str(value)
    return f"?{parameters.urlencode()}"


def ago(moment: datetime | None) -> SafeString | str:
    """`5 min ago`, `in 3 h`, `21 Nov, 14:05`; the exact time stands in the tooltip."""
    if moment is None:
        return "–"
    exact = moment.strftime("%Y-%m-%d %H:%M:%S UTC")
    return format_html('<time class="ea-time" title="{}">{}</time>', exact, _about(moment))


def _about(moment: datetime) -> str:
    distance = now() - moment
    size = abs(distance)
    words = next(
        (
            f"{max(size // unit, 1)} {name}"
            for limit, unit, name in (
                (timedelta(minutes=1), timedelta(seconds=1), "s"),
                (timedelta(hours=1), timedelta(minutes=1), "min"),
                (timedelta(days=1), timedelta(hours=1), "h"),
            )
            if size < limit
        ),
        "",
    )
    if words:
        return f"{words} ago" if distance > timedelta() else f"in {words}"
    same_year = moment.year == now().year
    return f"{moment.day} {moment:%b, %H:%M}" if same_year else f"{moment.day} {moment:%b %Y}"


def pretty(value: object) -> SafeString:
    """JSON, indented, escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return format_html('<pre class="ea-code">{}</pre>', text)


_PAGE = "<!doctype html><meta charset=utf-8><style>body { margin: 0 }</style>"


def document(html: str, *, popups: bool = False) -> HttpResponse:
    """Somebody else's HTML as a page of its own: no script, no form, no origin, framed only by
    us. `popups` lets its links open in a new tab."""
    response = HttpResponse(_PAGE + html)
    response["Content-Security-Policy"] = _DOCUMENT_POLICY.format(popups=_POPUPS if popups else "")
    response["X-Frame-Options"] = "SAMEORIGIN"
    response["Referrer-Policy"] = "no-referrer"
    response["Cache-Control"] = "no-store"
    return response

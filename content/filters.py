"""The filters a template may use. What is not listed here does not exist.

python-liquid's own implementations, behind three rules: text filters get text whatever they are
applied to, nothing returns markup, and what could multiply its input is counted before it is
built. Every result is measured again by the context (`sandbox.Context.filter`).

Differences from Liquid elsewhere: `escape` and `escape_once` do nothing, because every output is
escaped for the place where it stands; `date` reads ISO 8601 (shown in its own offset) and Unix
times (shown in UTC), and its `now` is the moment of the event, so that a mail shown again later
reads as it was sent.
"""

import functools
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from liquid import Environment, RenderContext
from liquid.exceptions import ResourceLimitError
from liquid.filter import with_context

from content.values import MAX_TEXT, Lines, joined, text_of

Filter = Callable[..., Any]

_ON_TEXT = (
    "append capitalize downcase lstrip prepend remove remove_first remove_last replace_first "
    "replace_last rstrip split squish strip strip_newlines truncate truncatewords upcase url_encode"
)
_ON_ANYTHING = (
    "abs at_least at_most ceil divided_by floor minus modulo plus round times "
    "compact concat default find first has last map reject reverse size sort sort_natural sum where"
)

# From here on a number counts milliseconds: in seconds it would be the year 5138.
_MILLISECONDS_FROM = 100_000_000_000
_LONGEST_DATE_FORMAT = 100
_TAG = re.compile(r"<[^<>]*>")


def allowed_filters() -> dict[str, Filter]:
    """Name → function, everything a template may write after a `|`."""
    known = Environment().filters
    return {
        **{name: known[name] for name in _ON_ANYTHING.split()},
        **{name: _on_text(known[name]) for name in _ON_TEXT.split()},
        "date": date,
        "escape": text_of,
        "escape_once": text_of,
        "join": join,
        "newline_to_br": newline_to_br,
        "replace": replace,
        "slice": _slice(known["slice"]),
        "strip_html": strip_html,
    }


def _on_text(function: Filter) -> Filter:
    @functools.wraps(function)
    def applied(value: object, *arguments: object, **options: object) -> Any:
        return function(text_of(value), *map(_scalar, arguments), **options)

    return applied


def _scalar(value: object) -> object:
    return value if isinstance(value, str | int | float) else text_of(value)


def _slice(function: Filter) -> Filter:
    def applied(value: object, *arguments: object) -> Any:
        sliceable = value if isinstance(value, list | tuple | range) else text_of(value)
        return function(sliceable, *map(_scalar, arguments))

    return applied


def join(values: object, glue: object = " ") -> str:
    """The entries of a list with `glue` between them."""
    return joined(values if isinstance(values, list | tuple | range) else [values], text_of(glue))


def replace(value: object, old: object, new: object = "") -> str:
    """Every `old` in the text as `new`."""
    text, searched, replacement = text_of(value), text_of(old), text_of(new)
    growth = text.count(searched) * (len(replacement) - len(searched))
    if len(text) + growth > MAX_TEXT:
        raise ResourceLimitError("a replaced text is too long", token=None)
    return text.replace(searched, replacement)


def newline_to_br(value: object) -> Lines:
    """The text, whose line breaks become `<br>` where it is printed into HTML."""
    return Lines(text_of(value).replace("\r\n", "\n"))


def strip_html(value: object) -> str:
    """The text without what looks like a tag."""
    return _TAG.sub("", text_of(value))


@with_context
def date(value: object, layout: object = "", *, context: RenderContext) -> str:
    """A point in time in strftime's words; what is no point in time is printed as it is."""
    if value in ("now", "today"):
        value = context.get(["event", "occurred_at"], token=None)
    moment = _moment(value)
    words = text_of(layout)[:_LONGEST_DATE_FORMAT]
    return moment.strftime(words) if moment is not None and words else text_of(value)


def _moment(value: object) -> datetime | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        value = int(value)
    try:
        if isinstance(value, str):
            return datetime.fromisoformat(value.strip())
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value / 1000 if value >= _MILLISECONDS_FROM else value
            return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None

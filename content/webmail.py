"""A mail's HTML as a webmail client shows it: what could run, frame or send is gone.

The second fence around previews; the first is the sandboxed frame they are shown in.
"""

import re
from collections.abc import Iterator
from typing import Any

from bleach.css_sanitizer import ALLOWED_CSS_PROPERTIES, CSSSanitizer
from bleach.html5lib_shim import Filter
from bleach.sanitizer import Cleaner

_TAGS = frozenset(
    "a abbr b blockquote br caption center code col colgroup dd del div dl dt em font h1 h2 h3 h4 "
    "h5 h6 hr i img ins li ol p pre s small span strike strong sub sup table tbody td tfoot th "
    "thead tr u ul".split()
)
_ATTRIBUTES = {
    "*": ["align", "bgcolor", "border", "class", "dir", "height", "lang", "role", "style", "title",
          "valign", "width", "aria-hidden", "aria-label"],
    "a": ["href", "name"],
    "img": ["alt", "src"],
    "table": ["cellpadding", "cellspacing"],
    "td": ["colspan", "rowspan"],
    "th": ["colspan", "rowspan", "scope"],
    "font": ["color", "face", "size"],
}  # fmt: skip
_PROPERTIES = ALLOWED_CSS_PROPERTIES | frozenset(
    "background border border-bottom border-left border-radius border-right border-spacing "
    "border-top box-sizing display line-height list-style margin margin-bottom margin-left "
    "margin-right margin-top mso-hide max-height max-width min-width opacity overflow padding "
    "padding-bottom padding-left padding-right padding-top table-layout text-transform "
    "visibility white-space word-break".split()
)
_STYLE = re.compile(r"<style\b", re.IGNORECASE)
_END_OF_STYLE = re.compile(r"</style", re.IGNORECASE)
# Their text is not the mail's: bleach would show it.
_SILENT = frozenset({"style", "script", "title", "noscript", "template"})


class _WithoutSilentElements(Filter):  # type: ignore[misc]
    """Drops an element of `_SILENT` together with everything in it."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        inside = 0
        for token in super().__iter__():
            if token["type"] == "StartTag" and token["name"] in _SILENT:
                inside += 1
            elif token["type"] == "EndTag" and token["name"] in _SILENT:
                inside -= 1
            elif not inside:
                yield token


def as_webmail(html: str) -> str:
    """The HTML without scripts, forms, frames, event handlers and foreign schemes. Style sheets
    stay: the frame they are shown in lets them do no more than style."""
    cleaner = Cleaner(
        tags=_TAGS | _SILENT,
        attributes=_ATTRIBUTES,
        protocols={"http", "https", "mailto", "tel", "sms"},
        css_sanitizer=CSSSanitizer(allowed_css_properties=_PROPERTIES),
        strip=True,
        strip_comments=True,
        filters=[_WithoutSilentElements],
    )
    sheets = "".join(f"<style>{sheet}</style>" for sheet in _style_sheets(html))
    return sheets + str(cleaner.clean(html))


def _style_sheets(html: str) -> Iterator[str]:
    """What stands in each, in order. The elements' raw text ends at their end tag, so what is
    between cannot close them early. The first without an end is the last that is looked at."""
    position = 0
    while opened := _STYLE.search(html, position):
        start = html.find(">", opened.end()) + 1
        ended = _END_OF_STYLE.search(html, start) if start else None
        if ended is None:
            return
        yield html[start : ended.start()]
        position = ended.end()

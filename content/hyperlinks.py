"""The links of a finished mail, exchanged in place. Pure.

A link is the `href` of an `<a>` or `<area>`. Left alone is one that its author has marked with
`data-track="off"` (the mark itself is taken out), and one whose text is an address: a mail that
shows one address and leads to another is what phishing looks like, to people and to filters.
"""

import html
import re
from collections.abc import Callable, Iterator
from html.entities import html5

from content.html_state import Forbidden
from content.html_tags import Attribute, Tag, attributes, skipping_all_but, tags

_LINKS = frozenset({"a", "area"})
_NEITHER_LINK_NOR_BODY = skipping_all_but([*_LINKS, "/body"])
_MARK = "data-track"
# In any case; the beginning is enough, and a literal first character is what makes it fast.
_MAY_BE_MARKED = re.compile("-[tT][rR][aA][cC]")
# Nothing is given back once it is taken: there are as many ways to divide a run of spaces as there
# are spaces in it, to the power of eight.
_SHOWS_AN_ADDRESS = re.compile(
    r"(?>(?:\s++|<(?!/)[^>]{0,500}+>){0,8})(?:https?://|www\.)", re.IGNORECASE
)
_ENTITY = re.compile(r"&(?:#[0-9]+;?|#[xX][0-9a-fA-F]+;?|([A-Za-z][A-Za-z0-9]*)(;?)(?=(=?)))")

_Edit = tuple[int, int, str]
"""From, to, and what stands there instead."""


def exchange_links(text: str, replace: Callable[[str], str | None], *, last: str = "") -> str:
    """The HTML with each link that `replace` has an answer for exchanged by it, and with the
    element `last` at the end of its body. Every other byte stays.

    `replace` is given the address as a reader understands it; what it gives is plain, too.
    """
    try:
        edits = list(_edits(text, replace, last))
    except Forbidden:  # nothing a template can have; whatever it is, it is not touched
        return text
    pieces: list[str] = []
    position = 0
    for start, end, piece in edits:
        pieces += (text[position:start], piece)
        position = end
    return "".join((*pieces, text[position:]))


def without_marks(text: str) -> str:
    """The HTML without its `data-track="off"`."""
    return exchange_links(text, lambda _: None) if _MAY_BE_MARKED.search(text) else text


def _edits(text: str, replace: Callable[[str], str | None], last: str) -> Iterator[_Edit]:
    end_of_body = None
    found: list[_Edit] = []
    for tag in tags(text, _NEITHER_LINK_NOR_BODY):
        if tag.name in _LINKS:
            found += _edits_of(text, tag, replace)
        elif tag.name == "/body":
            end_of_body = tag.start
    if last:
        place = len(text) if end_of_body is None else end_of_body
        found.append((place, place, last))
    yield from sorted(found)


def _edits_of(text: str, tag: Tag, replace: Callable[[str], str | None]) -> Iterator[_Edit]:
    found = attributes(text, tag)
    mark, href = found.get(_MARK), found.get("href")
    if mark is not None and text[mark.value_start : mark.value_end].strip().lower() == "off":
        yield _removed(text, mark)
        return
    if href is None or _SHOWS_AN_ADDRESS.match(text, tag.end):
        return
    address = replace(unescape(text[href.value_start : href.value_end]))
    if address is not None:
        yield href.value_start, href.value_end, html.escape(address)


def _removed(text: str, attribute: Attribute) -> _Edit:
    """With the space before it, unless only that divides its neighbours."""
    start = attribute.start
    if text[attribute.end] in " \t\r\n\f>":
        while text[start - 1] in " \t\r\n\f":
            start -= 1
    return start, attribute.end, ""


def unescape(value: str) -> str:
    """An attribute's value as readers understand it. Unlike in text, `&copy=1` and `&copyright`
    are no entities there: addresses are full of them."""
    return _ENTITY.sub(_character, value) if "&" in value else value


def _character(entity: re.Match[str]) -> str:
    name, semicolon, equals = entity.groups()
    if name is None:
        # Python drops characters that nobody should write; a reader has them in the address.
        return html.unescape(entity[0]) or "\0"
    if not semicolon and equals:
        return entity[0]
    return html5.get(name + semicolon, entity[0])

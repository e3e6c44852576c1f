"""The tags of a finished mail and where in it they and their attributes stand. Pure.

Nothing is parsed into a tree and written again, so whoever changes a piece leaves every other
byte as it was. It reads what `html_state` reads, but whole, and at ten times its speed.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from content.html_state import (
    COMMENT_END,
    CONDITIONAL,
    EMPTY_COMMENT,
    FORBIDDEN_ELEMENTS,
    RAW_ELEMENTS,
    Forbidden,
)

# Nothing here is ever tried again, so the time is that of one walk through the text. Groups are
# made atomic by `(?>`: Python before 3.11.5 loses its way in a group with `*+` (gh-106052).
_ATTRIBUTE = r"""
    [ \t\r\n\f/]*+
    (?P<name> [^ \t\r\n\f/>] [^ \t\r\n\f/>=]*+ )
    (?: [ \t\r\n\f]*+ = [ \t\r\n\f]*+
        (?: "(?P<double> [^"]*+ )" | '(?P<single> [^']*+ )'
          | (?P<bare> [^ \t\r\n\f>"'] [^ \t\r\n\f>]*+ ) | (?= > ) )
      | (?! [ \t\r\n\f]*+ = ) )
"""
_UNNAMED = re.sub(r"\?P<\w+>", "?:", _ATTRIBUTE)
_TAG = re.compile(
    rf"< (?P<name> /?+ [a-zA-Z] [^ \t\r\n\f/>]*+ ) (?> (?: {_UNNAMED} )* ) [ \t\r\n\f/]*+ >",
    re.VERBOSE,
)
_ATTRIBUTES = re.compile(_ATTRIBUTE, re.VERBOSE)
_OPENS_TAG = re.compile(r"</?[a-zA-Z]")
_RAW_ENDS = {
    name: re.compile(rf"</{name}(?=[ \t\r\n\f/>])", re.IGNORECASE) for name in RAW_ELEMENTS
}


@dataclass(frozen=True, slots=True)
class Attribute:
    """`text[start:end]` is all of it, `text[value_start:value_end]` its value without quotes."""

    start: int
    end: int
    value_start: int
    value_end: int

    def text_in(self, text: str) -> str:
        """Its value as it is written."""
        return text[self.value_start : self.value_end]


@dataclass(frozen=True, slots=True)
class Tag:
    """`text[start:end]` is all of it, from `<` to `>`."""

    name: str
    """Lower case; an end tag's begins with a slash."""
    start: int
    end: int


def skipping_all_but(names: Collection[str]) -> re.Pattern[str]:
    """A pattern for `tags` that passes over text and tags with other names than these."""
    # Upper and lower case are one here alone: a letter that only folds to one of these stops the
    # pattern, and is then looked at as everywhere else.
    stops = "|".join([*names, *RAW_ELEMENTS, *(f"/?{name}" for name in FORBIDDEN_ELEMENTS)])
    return re.compile(
        rf"""(?> (?: [^<]*+ < (?! (?i: {stops} ) [ \t\r\n\f/>] )
        /?+ [a-zA-Z] [^ \t\r\n\f/>]*+ (?> (?: {_UNNAMED} )* ) [ \t\r\n\f/]*+ > )* )""",
        re.VERBOSE,
    )


def tags(text: str, skipped: re.Pattern[str] | None = None) -> Iterator[Tag]:
    """Every tag that has an end, in order, conditional comments read as HTML, but for those that
    are `skipped`; raises `Forbidden`."""
    position: int | None = 0
    while position is not None:
        if skipped is not None and (dull := skipped.match(text, position)) is not None:
            position = dull.end()
        start = text.find("<", position)
        if start < 0:
            return
        if _OPENS_TAG.match(text, start) is None:
            position = _behind_markup(text, start)
            continue
        found = _TAG.match(text, start)
        if found is None:
            return
        tag = Tag(found["name"].lower(), start, found.end())
        if tag.name.lstrip("/") in FORBIDDEN_ELEMENTS:
            raise Forbidden(f"<{tag.name.lstrip('/')}> has no place in a mail")
        yield tag
        position = _behind_raw(text, tag) if tag.name in _RAW_ENDS else tag.end


def attributes(text: str, tag: Tag) -> Mapping[str, Attribute]:
    """A tag's attributes by their names in lower case; of two with one name readers take the
    first."""
    found: dict[str, Attribute] = {}
    position = tag.start + 1 + len(tag.name)
    while match := _ATTRIBUTES.match(text, position, tag.end):
        kind = match.lastgroup or "name"
        span = (match.end(), match.end()) if kind == "name" else match.span(kind)
        attribute = Attribute(match.start("name"), match.end(), *span)
        found.setdefault(match["name"].lower(), attribute)
        position = match.end()
    return found


def _behind_markup(text: str, start: int) -> int | None:
    """The position behind a `<` that opens no tag, with what it does open; None: nothing is."""
    if found := CONDITIONAL.match(text, start) or EMPTY_COMMENT.match(text, start):
        return found.end()
    if text.startswith("<!--", start):
        end = COMMENT_END.search(text, start + 4)
        return end.end() if end is not None else None
    if text[start + 1 : start + 2] in ("!", "?", "/"):
        close = text.find(">", start + 2)
        return close + 1 if close >= 0 else None
    return start + 1


def _behind_raw(text: str, tag: Tag) -> int | None:
    end = _RAW_ENDS[tag.name].search(text, tag.end)
    return end.start() if end is not None else None

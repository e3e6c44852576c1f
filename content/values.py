"""The data a template sees: plain JSON values in, plain text out. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from liquid.exceptions import ResourceLimitError

from content.exceptions import RenderError

MAX_TEXT = 100_000
"""Characters of the longest text a template may build."""
MAX_ITEMS = 10_000
"""Entries of the longest list a template may build."""

_MAX_DEPTH = 40
# Controls except tab and line breaks, Unicode's own line breaks, lone surrogates, non-characters:
# none of them can be sent or seen.
_UNSENDABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]"
)
_LINE_BREAKING = re.compile("[\\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# Marks that reorder what follows: "exe.pdf" could be made to read "fdp.exe".
_REORDERING = re.compile("[\u202a-\u202e\u2066-\u2069]")

_MAX_SUBJECT = 250
# A header may have 998 octets. Encoded words (RFC 2047) make at most 5 octets out of 3 and spend
# 14 more per 45: 560 octets of UTF-8 stay below it.
_MAX_SUBJECT_OCTETS = 560


class Lines(str):
    """Text whose line breaks are to be kept where HTML is written."""

    __slots__ = ()


def plain(context: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of `context` that holds nothing but dict, list, str, int, float, bool and None,
    without characters that cannot be sent. Raises `RenderError` for any other object."""
    payload = context.get("payload")
    copies: dict[int, Any] = {}
    if isinstance(payload, dict):
        # Most of it stands in the context a second time, by its keys; once is enough.
        copy: dict[str, Any] = {}
        for key, value in payload.items():
            copies[id(value)] = copy[_text(key)] = _plain(value, _MAX_DEPTH - 1)
        copies[id(payload)] = copy
    return {
        _text(key): copies[id(value)] if id(value) in copies else _plain(value, _MAX_DEPTH)
        for key, value in context.items()
    }


def _plain(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind is str or isinstance(value, str):
        return _text(value)
    if value is None or kind is int or kind is float or kind is bool:
        return value
    if depth == 0:
        raise RenderError("The data is nested too deeply.")
    if isinstance(value, dict):
        return {_text(key): _plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth - 1) for item in value]
    raise RenderError(f"The data contains a {type(value).__name__}, which no template may see.")


def _text(value: object) -> str:
    if type(value) is str:
        # The usual case, which needs no search: no printable ASCII is unsendable.
        if value.isascii() and value.isprintable():
            return value
    else:
        # str.__str__ turns a subclass (Markup, SafeString) into what its characters are.
        value = str.__str__(value) if isinstance(value, str) else str(value)
    return _UNSENDABLE.sub("", value)


def text_of(value: object) -> str:
    """What `{{ value }}` prints. Lists are joined; a mapping prints nothing, because its Python
    spelling is of no use to a reader. Raises `ResourceLimitError` past `MAX_TEXT`."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple):
        return joined(value, "")
    if isinstance(value, range):
        return f"{value.start}..{value.stop - 1}"
    return ""


def joined(values: Iterable[object], glue: str) -> str:
    """The texts of the values with `glue` between them, counted before they are put together."""
    texts: list[str] = []
    length = 0
    for value in values:
        texts.append(text_of(value))
        length += len(texts[-1]) + len(glue)
        if length > MAX_TEXT:
            raise ResourceLimitError("a list is too long to be printed", token=None)
    return glue.join(texts)


def one_line(text: str) -> str:
    """The text as a header may carry it: no line break, no control or reordering character, runs
    of white space collapsed."""
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()
    return _UNSENDABLE.sub("", _REORDERING.sub("", _LINE_BREAKING.sub(" ", text))).strip()


def subject_line(text: str) -> str:
    """`one_line`, cut so that the encoded header stays within 998 octets."""
    line = one_line(text)
    if len(line) <= _MAX_SUBJECT and len(line.encode()) <= _MAX_SUBJECT_OCTETS:
        return line
    octets = line[: _MAX_SUBJECT - 1].encode()[: _MAX_SUBJECT_OCTETS - 3]
    return octets.decode(errors="ignore").rstrip() + "…"

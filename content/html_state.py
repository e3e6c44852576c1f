"""Where in HTML a piece of text leaves the reader: the tokenizer of the HTML standard, as far as
it decides what a value printed there could do. Pure.

`advance` reads literal HTML. A construct that is cut off at the end of a piece (`<!-`) is kept in
`State.pending` and read again with the next piece.
"""

import html
import re
from enum import Enum, auto
from typing import Final, NamedTuple


class Mode(Enum):
    """States of the tokenizer, merged where the difference does not matter here."""

    TEXT = auto()
    COMMENT = auto()
    DECLARATION = auto()
    """`<!doctype …`, `<![endif]…`, `<?…`, `</ …`: everything up to the next `>`."""
    RAW = auto()
    """Inside `<style>`, `<title>`, `<textarea>`: everything up to its end tag."""
    TAG_NAME = auto()
    BEFORE_NAME = auto()
    NAME = auto()
    AFTER_NAME = auto()
    BEFORE_VALUE = auto()
    VALUE = auto()
    """Between the quotes of an attribute's value."""
    UNQUOTED = auto()


class Url(Enum):
    """How much of an address is settled by the literal text so far."""

    START = auto()
    """Nothing: what is printed here is the address."""
    UNCLEAR = auto()
    """Something, but not yet a scheme."""
    HOST = auto()
    """`https://` and perhaps a part of the host."""
    REST = auto()
    """Scheme and host."""
    REFUSED = auto()
    """A relative address, or a scheme a mail has no use for."""


class State(NamedTuple):
    """Equal states behave equally on everything that follows."""

    mode: Mode = Mode.TEXT
    tag: str = ""
    """Name of the open tag or raw element, lower case; an end tag's begins with a slash."""
    name: str = ""
    """Name of the attribute, lower case."""
    quote: str = ""
    url: Url = Url.START
    literal: str = ""
    """The address so far while it is UNCLEAR; its last character while it is HOST."""
    pending: str = ""


class Forbidden(Exception):
    """The HTML contains an element that has no place in a mail."""


URL_ATTRIBUTES: Final = frozenset(
    {"href", "src", "background", "action", "cite", "poster", "longdesc"}
)
RAW_ELEMENTS: Final = frozenset({"style", "title", "textarea"})
# Scripts and frames, which mail clients drop, and elements inside which HTML is tokenized by
# other rules than these.
_FORBIDDEN_NAMES = (
    "applet base embed frame frameset iframe math noembed noframes noscript object plaintext "
    "script svg template xmp"
)
FORBIDDEN_ELEMENTS: Final = frozenset(_FORBIDDEN_NAMES.split())

CONDITIONAL = re.compile(r"<!--\[if[^\]>]*\]>", re.IGNORECASE)
_CONDITIONAL_BEGUN = re.compile(r"<!--(\[(i(f[^\]>]*\]?)?)?)?\Z", re.IGNORECASE)
EMPTY_COMMENT = re.compile(r"<!---?>")
_TAG = re.compile(r"</?(?=[a-zA-Z])")
_UNDECIDED = re.compile(r"<(/|!-?|!---?)?\Z")
COMMENT_END = re.compile(r"--!?>")
_COMMENT_ENDING = re.compile(r"--?!?\Z")
_NAME_PART = re.compile(r"[^\s/>=]*")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_INVISIBLE = re.compile(r"[\x00-\x20]+")
_OPAQUE_SCHEMES: Final = frozenset({"mailto", "tel", "sms", "cid"})


_Step = tuple[State, int]
"""The state behind what was read, and the position of what is read next."""


def advance(state: State, text: str) -> State:
    """The state after the literal `text`; raises `Forbidden`."""
    text = state.pending + text
    state = state._replace(pending="")
    position = 0
    while position < len(text):
        state, position = _STEPS[state.mode](state, text, position)
    return state


def _text(state: State, text: str, position: int) -> _Step:
    start = text.find("<", position)
    if start < 0:
        return state, len(text)
    # Outlook reads the inside of conditional comments as HTML, everybody else skips it: read as
    # HTML, what is printed there is safe for both.
    if found := CONDITIONAL.match(text, start) or EMPTY_COMMENT.match(text, start):
        return state, found.end()
    if _CONDITIONAL_BEGUN.match(text, start) or _UNDECIDED.match(text, start):
        return state._replace(pending=text[start:]), len(text)
    if text.startswith("<!--", start):
        return State(Mode.COMMENT), start + 4
    if found := _TAG.match(text, start):
        return State(Mode.TAG_NAME, tag=found[0][1:]), found.end()
    if text[start + 1] in "!?/":
        return State(Mode.DECLARATION), start + 2
    return state, start + 1


def _comment(state: State, text: str, position: int) -> _Step:
    if found := COMMENT_END.search(text, position):
        return State(), found.end()
    ending = _COMMENT_ENDING.search(text, position)
    return state._replace(pending=ending[0] if ending else ""), len(text)


def _declaration(state: State, text: str, position: int) -> _Step:
    end = text.find(">", position)
    return (State(), end + 1) if end >= 0 else (state, len(text))


def _raw(state: State, text: str, position: int) -> _Step:
    end_tag = f"</{state.tag}"
    start = text.find("<", position)
    if start < 0:
        return state, len(text)
    candidate = text[start : start + len(end_tag) + 1].lower()
    if len(candidate) <= len(end_tag) and end_tag.startswith(candidate):
        return state._replace(pending=text[start:]), len(text)
    if candidate[:-1] == end_tag and candidate[-1] in " \t\r\n\f/>":
        return State(), start
    return state, start + 1


def _tag_name(state: State, text: str, position: int) -> _Step:
    end = position
    while end < len(text) and text[end] not in " \t\r\n\f/>":
        end += 1
    tag = state.tag + text[position:end].lower()
    if end == len(text):
        return state._replace(tag=tag), end
    if tag.lstrip("/") in FORBIDDEN_ELEMENTS:
        raise Forbidden(f"<{tag.lstrip('/')}> has no place in a mail")
    return State(Mode.BEFORE_NAME, tag=tag), end


def _before_name(state: State, text: str, position: int) -> _Step:
    character = text[position]
    if character == ">":
        raw = state.tag in RAW_ELEMENTS
        return (State(Mode.RAW, tag=state.tag) if raw else State()), position + 1
    if character in " \t\r\n\f/":
        return state, position + 1
    return State(Mode.NAME, tag=state.tag, name=character.lower()), position + 1


def _name(state: State, text: str, position: int) -> _Step:
    found = _NAME_PART.match(text, position)
    assert found is not None
    state = state._replace(name=state.name + found[0].lower())
    if found.end() == len(text):
        return state, found.end()
    return state._replace(mode=Mode.AFTER_NAME), found.end()


def _after_name(state: State, text: str, position: int) -> _Step:
    character = text[position]
    if character in " \t\r\n\f":
        return state, position + 1
    if character == "=":
        return state._replace(mode=Mode.BEFORE_VALUE), position + 1
    return State(Mode.BEFORE_NAME, tag=state.tag), position


def _before_value(state: State, text: str, position: int) -> _Step:
    character = text[position]
    if character in " \t\r\n\f":
        return state, position + 1
    if character == ">":
        return State(Mode.BEFORE_NAME, tag=state.tag), position
    if character in "\"'":
        return state._replace(mode=Mode.VALUE, quote=character), position + 1
    return state._replace(mode=Mode.UNQUOTED), position


def _value(state: State, text: str, position: int) -> _Step:
    end = text.find(state.quote, position)
    if end >= 0:
        return State(Mode.BEFORE_NAME, tag=state.tag), end + 1
    if state.name in URL_ATTRIBUTES:
        state = _in_url(state, text[position:])
    return state, len(text)


def _unquoted(state: State, text: str, position: int) -> _Step:
    character = text[position]
    if character in " \t\r\n\f>":
        return State(Mode.BEFORE_NAME, tag=state.tag), position
    return state, position + 1


def _in_url(state: State, text: str) -> State:
    if state.url is Url.HOST:
        return _after_scheme(state, state.literal + text)
    if state.url in (Url.REST, Url.REFUSED):
        return state
    literal = state.literal + text
    # As browsers do: entities are read, and white space and controls around and inside of the
    # scheme do not count.
    address = _INVISIBLE.sub("", html.unescape(literal))
    if not address:
        return state
    scheme = _SCHEME.match(address)
    if scheme is None:
        relative = address[0] in "/?#"
        url = Url.REFUSED if relative else Url.UNCLEAR
        return state._replace(url=url, literal="" if relative else literal)
    if scheme[1].lower() in _OPAQUE_SCHEMES:
        return state._replace(url=Url.REST, literal="")
    if scheme[1].lower() not in ("http", "https"):
        return state._replace(url=Url.REFUSED, literal="")
    rest = address[scheme.end() :]
    if rest.startswith("//"):
        return _after_scheme(state, rest[1:])
    return state._replace(
        url=Url.UNCLEAR if "//".startswith(rest) else Url.REFUSED, literal=literal
    )


def _after_scheme(state: State, text: str) -> State:
    host = _INVISIBLE.sub("", html.unescape(text))
    if re.search(r"[/?#\\]", host[1:]):
        return state._replace(url=Url.REST, literal="")
    return state._replace(url=Url.HOST, literal=host[-1:])


_STEPS = {
    Mode.TEXT: _text,
    Mode.COMMENT: _comment,
    Mode.DECLARATION: _declaration,
    Mode.RAW: _raw,
    Mode.TAG_NAME: _tag_name,
    Mode.BEFORE_NAME: _before_name,
    Mode.NAME: _name,
    Mode.AFTER_NAME: _after_name,
    Mode.BEFORE_VALUE: _before_value,
    Mode.VALUE: _value,
    Mode.UNQUOTED: _unquoted,
}

"""Taking a mail apart that anybody may have sent: bounded in parts, depth, time and memory.

The `email` package has no limits of that kind, follows nested parts as deep as they go, and takes
time in the square of their number. Here a part is cut out of its parent once per level, and the
levels are few. Nothing is unpacked, so no text is larger than what was received.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header
from functools import cached_property
from urllib.parse import unquote

from webhooks.reading import Malformed

MAX_PARTS = 100
MAX_DEPTH = 8

_MAX_HEAD = 64 * 1024
_MAX_HEADERS = 500
_MAX_VALUE = 2_000
_MAX_BOUNDARY = 200

_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_FOLD = re.compile(r"\r?\n[ \t]+")
_TYPE = re.compile(r"[\w!#$&^.+-]{1,60}/[\w!#$&^.+-]{1,60}")
# A quotation mark that is not closed closes at the end.
_PARAMETER = re.compile(r';\s*([^\s=;"]{1,60})\s*=\s*(?:"((?:[^"\\]|\\.)*)"?|([^\s;]*))')
_ESCAPED = re.compile(r"\\(.)")
_NAME = re.compile(r"[!-9;-~]{1,100}")
# What mail is written in. Others that Python knows take time in the square of the text (punycode),
# or are none (base64).
_CHARSET = re.compile(
    r"utf-?(8|16)|us-?ascii|iso-?8859-?\d{1,2}|(windows-?|cp)\d{3,4}|koi8-?[rut]|gb2312|gbk|gb18030|"
    r"big5|euc-?(jp|kr)|shift_?jis|iso-2022-(jp|kr)"
)

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A mail, or a part of one, that is not divided any further."""

    headers: Headers
    """Names in lower case; values unfolded, as they were written."""
    body: bytes
    """As it was transferred."""

    @property
    def type(self) -> str:
        """`main/sub` in lower case; what is missing or unreadable is plain text."""
        kind = value(self.headers, "content-type").partition(";")[0].strip().lower()
        return kind if _TYPE.fullmatch(kind) else "text/plain"

    @property
    def text(self) -> str:
        """The body as text, whatever its encodings claim."""
        encoding = value(self.headers, "content-transfer-encoding").strip().lower()
        charset = _parameter(self.headers, "charset")
        return _as_text(_transferred(self.body, encoding), charset).replace("\r\n", "\n")


@dataclass(frozen=True)
class Mail:
    """A mail: its own headers, and its parts from first to last."""

    headers: Headers
    parts: tuple[Part, ...]

    def values(self, *names: str) -> list[str]:
        """The values of all headers of these names."""
        return [text for name, text in self.headers if name in names]

    def first(self, name: str) -> str:
        """The first value of this header, decoded, or an empty text."""
        return decoded(value(self.headers, name))

    def of_type(self, *types: str) -> list[Part]:
        """The parts of these types."""
        return [part for part in self.parts if part.type in types]

    @cached_property
    def words(self) -> str:
        """What it tells people: its plain text parts, or whatever is text."""
        plain = self.of_type("text/plain") or self.of_type("text/html")
        return "\n".join(part.text for part in plain)


def read_mail(raw: bytes) -> Mail:
    """Take it apart; raises `Malformed` when it has too many parts, or too deep ones."""
    headers, body = split(raw)
    parts: list[Part] = []
    for part in _leaves(Part(headers, body), 1):
        parts.append(part)
        if len(parts) > MAX_PARTS:
            raise Malformed(f"a mail of more than {MAX_PARTS} parts")
    return Mail(headers, tuple(parts))


def split(raw: bytes) -> tuple[Headers, bytes]:
    """The headers at the beginning, and what stands behind the first empty line."""
    if raw.startswith((b"\n", b"\r\n")):
        return (), raw.lstrip(b"\r\n")
    end = _END_OF_HEAD.search(raw)
    head, body = (raw[: end.start()], raw[end.end() :]) if end else (raw, b"")
    return read_headers(head[:_MAX_HEAD].decode("utf-8", "replace")), body


def read_headers(head: str) -> Headers:
    """`Name: value` for each line that is one."""
    found = []
    for line in _FOLD.sub(" ", head).splitlines()[:_MAX_HEADERS]:
        name, colon, text = line.partition(":")
        if colon and _NAME.fullmatch(name.rstrip()):
            found.append((name.rstrip().lower(), text.strip()[:_MAX_VALUE]))
    return tuple(found)


def value(headers: Headers, name: str) -> str:
    """The first header of that name as it was written, or an empty text."""
    return next((text for own, text in headers if own == name), "")


def decoded(text: str) -> str:
    """A header's value with its encoded words read (RFC 2047)."""
    if "=?" not in text:
        return text
    try:
        chunks = decode_header(text)
    except (HeaderParseError, ValueError):
        return text
    return "".join(
        chunk if isinstance(chunk, str) else _as_text(chunk, charset or "")
        for chunk, charset in chunks
    )


def _leaves(part: Part, depth: int) -> Iterator[Part]:
    if not part.type.startswith("multipart/"):
        yield part
        return
    children = _children(part)
    if not children:  # what cannot be divided is read as it stands
        yield Part((), part.body)
    if depth >= MAX_DEPTH:
        raise Malformed(f"a mail of parts more than {MAX_DEPTH} deep")
    for child in children:
        yield from _leaves(Part(*split(child)), depth + 1)


def _children(part: Part) -> list[bytes]:
    """What stands between the boundaries; without any, or without an end, as much as there is."""
    boundary = _parameter(part.headers, "boundary")[:_MAX_BOUNDARY].rstrip()
    if not boundary:
        return []
    line = re.compile(
        rb"(?:\A|\r?\n)--"
        + re.escape(boundary.encode("utf-8", "replace"))
        + rb"(--)?[ \t]*(?=\r?\n|\Z)"
    )
    children: list[bytes] = []
    start = None
    for match in line.finditer(part.body):
        if start is not None:
            children.append(_without_line_end(part.body[start : match.start()]))
        if len(children) > MAX_PARTS:
            raise Malformed(f"a mail of more than {MAX_PARTS} parts")
        start = match.end()
        if match[1]:
            return children
    return [*children, _without_line_end(part.body[start:])] if start is not None else children


def _without_line_end(raw: bytes) -> bytes:
    """A part without the end of its boundary's line."""
    return raw[2:] if raw.startswith(b"\r\n") else raw[1:] if raw.startswith(b"\n") else raw


def _parameter(headers: Headers, name: str) -> str:
    """A parameter of Content-Type; one in pieces, or with its own charset (RFC 2231), is joined."""
    pieces = [
        _unescaped(key, quoted or plain)
        for key, quoted, plain in _PARAMETER.findall(value(headers, "content-type"))
        if key.lower().partition("*")[0] == name
    ]
    return "".join(pieces)


def _unescaped(key: str, text: str) -> str:
    if key.endswith("*"):
        return unquote(text.rpartition("'")[2])
    return _ESCAPED.sub(r"\1", text)


def _transferred(body: bytes, encoding: str) -> bytes:
    if encoding == "quoted-printable":
        return binascii.a2b_qp(body)
    if encoding != "base64":
        return body
    try:
        return b64decode(body)
    except (binascii.Error, ValueError):
        return body


def _as_text(raw: bytes, charset: str) -> str:
    name = charset.strip().lower()
    try:
        return raw.decode(name if _CHARSET.fullmatch(name) else "utf-8", "replace")
    except (LookupError, ValueError):
        return raw.decode("utf-8", "replace")

"""A mail's wire form, joined by hand: the same structure Django's `EmailMultiAlternatives` makes
for text and HTML, at a twentieth of what the `email` package takes.

All of it is ASCII (quoted-printable bodies, RFC 2047 words in headers), so that any server takes
it. Nothing is random: the same mail has the same bytes on every call.
"""

import functools
import re
from binascii import b2a_qp
from collections.abc import Iterable
from email.header import Header
from email.utils import formataddr

_LONGEST_LINE = 78
_LONGEST_WITH_WORDS = 76  # RFC 2047 §2, its words 75
_LONGEST_ALLOWED = 998  # RFC 5322 §2.1.1
_PRINTABLE = re.compile(r"[ -~]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FOLD = "\r\n "
_KEPT_LINES = 2_048
_LONGEST_KEPT = 1_000  # together 4 MB in Latin script, 34 MB of emoji

_PART = (
    b"--%(boundary)s\r\n"
    b'Content-Type: text/%(kind)s; charset="utf-8"\r\n'
    b"Content-Transfer-Encoding: quoted-printable\r\n\r\n"
    b"%(body)s"
)


class Encoded(str):
    """A header's value as it goes over the wire, but for its folding."""

    __slots__ = ()


def mailbox(name: str, address: str) -> Encoded:
    """`name <address>` for an address header; raises `ValueError` if either holds a control
    character or the address is not ASCII."""
    if not _is_plain(address):
        raise ValueError("the address is not ASCII")
    return _named(name, address) if name else Encoded(address)


# Senders have names, and are few.
@functools.lru_cache(maxsize=256)
def _named(name: str, address: str) -> Encoded:
    _refuse_control(name)
    if _is_plain(name):
        return Encoded(formataddr((name, address)))
    return Encoded(f"{' '.join(_words(name, 'Reply-To'))} <{address}>")


def alternative(headers: Iterable[tuple[str, str]], *, text: str, html: str, token: str) -> bytes:
    """A multipart/alternative mail with CRLF line ends.

    Header values are as people read them, or `Encoded`. `token` is ASCII and unique to the mail;
    it goes into the boundary, which no quoted-printable text can contain. Raises `ValueError` for
    a header that cannot be expressed.
    """
    boundary = f"=_{token}".encode("ascii")
    return b"\r\n".join(
        (
            head(headers) + b"MIME-Version: 1.0",
            b'Content-Type: multipart/alternative; boundary="%s"' % boundary,
            b"",
            _PART % {b"boundary": boundary, b"kind": b"plain", b"body": _quoted(text)},
            _PART % {b"boundary": boundary, b"kind": b"html", b"body": _quoted(html)},
            b"--%s--\r\n" % boundary,
        )
    )


def head(headers: Iterable[tuple[str, str]]) -> bytes:
    """Lines to stand at the beginning of a mail; see `alternative`."""
    return b"".join([b"%s\r\n" % _header(name, value) for name, value in headers])


def _header(name: str, value: str) -> bytes:
    _refuse_control(value)
    if isinstance(value, Encoded) or _is_plain(value):
        if len(name) + len(value) < _LONGEST_LINE - 1:
            return f"{name}: {value}".encode("ascii")
        folded = _folded(name, value)
        if max(map(len, folded)) <= _LONGEST_ALLOWED:
            return "\r\n".join(folded).encode("ascii")
    return f"{name}: {_FOLD.join(_words(value, name))}".encode("ascii")


def _folded(name: str, value: str) -> list[str]:
    """The header's lines, broken at spaces where it would be too long."""
    lines = [f"{name}:"]
    for word in value.split(" "):
        # A line of spaces alone would be taken for the end of the headers by some.
        if word and len(lines[-1]) + 1 + len(word) > _LONGEST_LINE and lines[-1] != f"{name}:":
            lines.append("")
        lines[-1] += f" {word}"
    return lines


def _words(value: str, name: str) -> list[str]:
    """RFC 2047 words that fit behind the header's name."""
    words = Header(value, "utf-8", header_name=name, maxlinelen=_LONGEST_WITH_WORDS)
    return words.encode().split("\n ")


def _is_plain(value: str) -> bool:
    # "=?" would be taken for the beginning of an encoded word.
    return _PRINTABLE.fullmatch(value) is not None and "=?" not in value


def _refuse_control(value: str) -> None:
    if _CONTROL.search(value):
        raise ValueError("a header's value holds a control character")


def _quoted(body: str) -> bytes:
    if "\r" in body:
        body = body.replace("\r\n", "\n").replace("\r", "\n")
    lines = body.removesuffix("\n").split("\n")
    return b"".join([_kept_line(x) if len(x) <= _LONGEST_KEPT else _encoded_line(x) for x in lines])


def _encoded_line(line: str) -> bytes:
    # b2a_qp takes its line ends from the first one it finds, so there has to be one.
    return b2a_qp(f"{line}\r\n".encode("utf-8", "replace"), istext=True)


# Quoted-printable knows nothing beyond a line, and most lines of a mail are its template's.
_kept_line = functools.lru_cache(maxsize=_KEPT_LINES)(_encoded_line)

"""Finding a person's addresses in any text, however they are spelled there.

Letters and digits stand as they are in every spelling that programs produce; what is around and
between them (`@`, `.`, `+`) may be percent-encoded, a JSON escape, an HTML entity or
quoted-printable, and what is not ASCII may be its bytes. Base64 is another matter: there the
address looks different at each of three offsets.
"""

import base64
import re
from collections.abc import Iterable, Iterator

# What may stand before an address besides what no address contains: the end of an escape, which
# looks like a letter or digit of a longer local part. In quoted-printable only what commonly
# stands there, because `=ab` in a URL is no escape.
_BEFORE = "|".join(
    [
        r"(?<![[:alnum:]._%+-])",
        r"(?<=%[0-9a-f][0-9a-f])",
        r"(?<==(3c|3d|22|20|27|28|3a|09))",
        r"(?<=\\u00[0-7][0-9a-f])",
        r"(?<=\\[nrt])",
        r"(?<=\\[0-7][0-7][0-7])",
    ]
)
_AFTER = r"(?![a-z0-9-]|\.[a-z0-9])"
_NEVER = "(?!)"


def pattern_of(addresses: Iterable[str]) -> str:
    """A regular expression of PostgreSQL (for `~*`) that finds one of them in any text, also in
    `encode(bytes, 'escape')`, and never as the tail or head of somebody else's."""
    either = _either(addresses)
    return f"({_BEFORE})({either}){_AFTER}" if either else _NEVER


def loose_pattern_of(addresses: Iterable[str]) -> str:
    """The same without a look at what stands around it: it finds more, twenty times as fast."""
    return _either(addresses) or _NEVER


def naming(text: str) -> str:
    """SQL that says whether a text matches `%(pattern)s`, asked of the few alone that match
    `%(loose)s`."""
    return f"CASE WHEN {text} ~* %(loose)s THEN {text} ~* %(pattern)s ELSE false END"


def own_pattern_of(addresses: Iterable[str], user_id: str) -> str:
    """The same for the person's own rows: the addresses wherever in a word they stand, and the
    user id as a word, because a short one is a part of every UUID."""
    found = list(filter(None, [_either(addresses)]))
    if user_id:
        found.append(rf"(?<![[:alnum:]]){_spelt(user_id.lower())}(?![[:alnum:]])")
    return "|".join(found) or _NEVER


def base64_of(addresses: Iterable[str]) -> list[str]:
    """Patterns of LIKE for them within base64 without line breaks."""
    found = set()
    for address in _with_readable_domains(addresses):
        for spelt in {address, address.lower()}:
            raw = spelt.encode()
            for offset in range(3):
                text = base64.b64encode(bytes(offset) + raw).decode()
                # Of the first and the last letter some bits are the neighbours'.
                first, last = (0, 2, 3)[offset], 8 * (offset + len(raw)) // 6
                found.add(f"%{text[first:last]}%")
    return sorted(found)


def _either(addresses: Iterable[str]) -> str:
    return "|".join(sorted({_spelt(a.lower()) for a in _with_readable_domains(addresses)}))


def _with_readable_domains(addresses: Iterable[str]) -> Iterator[str]:
    """Each as it is and, where its domain is an A-label, as people write it."""
    for address in addresses:
        yield address
        local, _, domain = address.rpartition("@")
        if "xn--" in domain.lower():
            try:
                yield f"{local}@{domain.encode().decode('idna')}"
            except UnicodeError:
                continue


def _spelt(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else _ways(c) for c in text)


def _ways(character: str) -> str:
    """Every spelling of a character that is no ASCII letter or digit."""
    ways: list[str] = []
    for c in dict.fromkeys((character, character.upper())):
        raw, units = c.encode(), c.encode("utf-16-be").hex()
        ways += [
            re.escape(c),
            "".join(f"%(25)*{byte:02x}" for byte in raw),
            "".join(f"={byte:02x}" for byte in raw),
            "".join(rf"\\{{1,4}}u{units[i : i + 4]}" for i in range(0, len(units), 4)),
            *(way for k in map(ord, c) for way in (f"&#0*{k};", f"&#x0*{k:x};")),
        ]
        if not c.isascii():
            ways.append("".join(rf"\\{byte:03o}" for byte in raw))
    if character == "@":
        ways.append("&commat;")
    return f"({'|'.join(ways)})"

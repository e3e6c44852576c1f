"""Where a link may be sent on to. Pure.

Checked when a mail is made, by what browsers make of an address rather than by what it looks
like: whatever two readers could understand differently is left as the author wrote it.
"""

import functools
import re
from urllib.parse import urlsplit

from django.conf import settings
from django.utils.encoding import iri_to_uri

_LONGEST = 2_000
_KEPT = 1_024
# Controls (C0, DEL, C1), white space of any kind, and the characters that some readers take for
# a slash or the end of the address.
_UNCLEAR = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ufeff\ud800-\udfff\\<>\"^`{|}]|\s")
_WEB = re.compile(r"https?://[^/?#]", re.IGNORECASE)
# Others have two spellings, and what is between them is up to the reader.
_HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]", re.IGNORECASE)


def destination(href: str) -> str | None:
    """The address a tracked link is sent on to, or None when the link is not for tracking: no
    plain http or https, somebody's login in it, or one of our own pages."""
    url = href.strip(" \t\r\n\f")
    if len(url) > _LONGEST:
        return None
    return _checked(url, (settings.PUBLIC_URL, settings.TRACKING_URL))


# The mails of a campaign have most of their links in common.
@functools.lru_cache(maxsize=_KEPT)
def _checked(url: str, own: tuple[str, ...]) -> str | None:
    if _UNCLEAR.search(url) or not _WEB.match(url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    netloc = parts.netloc
    host = netloc.removesuffix(f":{port}") if port is not None else netloc
    if not _HOST.fullmatch(host) or _is_one_of(url, own):
        return None
    return url


def location(url: str) -> str:
    """A destination as it stands in a header: all ASCII."""
    return iri_to_uri(url)


def _is_one_of(url: str, own: tuple[str, ...]) -> bool:
    # Unsubscribe links and the like have to work whatever becomes of tracking.
    return _origin(url) in map(_origin, own)


def _origin(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    port = parts.port if parts.port not in (None, 80) else 443
    return (parts.hostname or "").rstrip("."), port or 443

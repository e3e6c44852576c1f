"""Links and a pixel that tell what became of a mail, for people who agreed to that.

A token names the message, and for a click the link; it holds no address and no destination, and
cannot be made without the key. What is made here is the same on every call.
"""

import functools
import hashlib
from collections.abc import Mapping
from html import escape
from typing import NamedTuple
from uuid import UUID

from django.conf import settings

from common.signing import read_uuid, read_uuids, sign_uuid, sign_uuids
from contacts.services import Recipient
from content.hyperlinks import exchange_links
from delivery.destinations import destination
from delivery.models import Message
from delivery.states import Stream

_CLICK = "click"
_OPEN = "open"
_KEPT_IDS = 1_024

_PIXEL = (
    '<img src="{url}" width="1" height="1" alt="" '
    'style="display:block;width:1px;height:1px;border:0;">'
)


class Tracked(NamedTuple):
    """A mail's HTML, and where its tracked links lead."""

    html: str
    links: Mapping[UUID, str]


def may_be_tracked(message: Message, recipient: Recipient) -> bool:
    """Whether what is made now may tell opens and clicks: marketing mail, to somebody who agreed.

    What a provider may have already is made as it was then, unless they have changed their mind:
    in that case it is another mail, and not offered again.
    """
    has_begun = message.replay_until is not None
    return (
        message.stream == Stream.MARKETING
        and recipient.may_track
        and (message.is_tracked or not has_begun)
    )


def tracked(html: str, message_id: UUID) -> Tracked:
    """The HTML with its links leading through us, and the pixel."""
    links: dict[UUID, str] = {}

    def replace(href: str) -> str | None:
        url = destination(href)
        if url is None:
            return None
        link = link_id(url)
        links[link] = url
        return click_url(message_id, link)

    pixel = _PIXEL.format(url=escape(open_url(message_id)))
    return Tracked(exchange_links(html, replace, last=pixel), links)


@functools.lru_cache(maxsize=_KEPT_IDS)
def link_id(url: str) -> UUID:
    """The id of a destination: 122 bits of its SHA-256, as a UUID of version 8 (RFC 9562)."""
    digest = bytearray(hashlib.sha256(url.encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return UUID(bytes=bytes(digest))


def click_url(message_id: UUID, link: UUID) -> str:
    """The address of a tracked link in a mail."""
    return f"{settings.TRACKING_URL}/t/c/{sign_uuids(_CLICK, message_id, link)}"


def open_url(message_id: UUID) -> str:
    """The address of a mail's pixel."""
    return f"{settings.TRACKING_URL}/t/o/{sign_uuid(_OPEN, message_id)}.gif"


def read_click(token: str) -> tuple[UUID, UUID] | None:
    """Message and link of a token of ours, or None."""
    found = read_uuids(_CLICK, token, count=2)
    return (found[0], found[1]) if found is not None else None


def read_open(token: str) -> UUID | None:
    """The message of a pixel's token, or None."""
    return read_uuid(_OPEN, token)

"""The headers of a mail: stable ids, the way out, and what mailbox providers ask of bulk mail."""

import hashlib
import hmac
import re
from email.utils import format_datetime
from functools import lru_cache
from uuid import UUID

from django.conf import settings

from delivery.links import unsubscribe_url
from delivery.mime import mailbox
from delivery.models import Message, Sender
from delivery.return_paths import unsubscribe_address
from delivery.states import Stream

_MESSAGE_ID = re.compile(r"<?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.([0-9a-f]{8})@")


def message_id(uuid: UUID, domain: str) -> str:
    """`<uuid.proof@domain>`: made once from the row, the same on every attempt, so that receivers
    who collapse duplicates can."""
    return f"<{uuid}.{_proof(uuid)}@{domain}>"


def uuid_in_message_id(text: str) -> UUID | None:
    """The message a Message-ID of ours names, or None when it was not made here."""
    found = _MESSAGE_ID.match(text.strip())
    if found is None:
        return None
    uuid = UUID(found[1])
    return uuid if hmac.compare_digest(_proof(uuid), found[2]) else None


def headers_of(message: Message, sender: Sender) -> dict[str, str]:
    """Every header that is not an addressing or content header.

    Marketing mail carries RFC 8058 one-click unsubscribe, List-ID and Feedback-ID. All mail here
    answers an event, so all of it asks not to be auto-replied to (RFC 3834).
    """
    domain = sender.email.rpartition("@")[2]
    headers = {
        "Message-ID": message_id(message.pk, domain),
        "Date": _written(message.created_at.replace(microsecond=0)),
        "Auto-Submitted": "auto-generated",
        "X-Auto-Response-Suppress": "OOF, AutoReply",
    }
    if message.stream == Stream.MARKETING:
        headers |= _bulk_headers(message, domain)
    return headers


# Which takes a while, and the mails of a batch were made within a second or two.
_written = lru_cache(maxsize=64)(format_datetime)


def _bulk_headers(message: Message, domain: str) -> dict[str, str]:
    topic = message.topic
    name, key = (topic.name, topic.key) if topic is not None else ("Marketing", "marketing")
    # Colons separate the fields of Feedback-ID; the last one names the sender and is required.
    feedback = ":".join((message.origin_campaign or "-", message.stream, domain))
    return {
        "List-Unsubscribe": _ways_out(message.pk),
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "List-ID": mailbox(name, f"{key}.{domain}"),
        "Feedback-ID": feedback,
    }


def _ways_out(uuid: UUID) -> str:
    """Over https, which goes first, and by mail where a mailbox for that is set up."""
    address = unsubscribe_address(uuid)
    by_mail = f", <mailto:{address}?subject=unsubscribe>" if address else ""
    return f"<{unsubscribe_url(uuid)}>{by_mail}"


def _proof(uuid: UUID) -> str:
    # ADDRESS_HASH_KEY, because it is the key that never rotates and the id has to stay stable.
    key = b"message-id" + settings.ADDRESS_HASH_KEY.encode()
    return hmac.digest(key, uuid.bytes, hashlib.sha256).hex()[:8]

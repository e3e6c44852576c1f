"""What an outgoing webhook says, to the byte."""

import hashlib
import re
from datetime import datetime
from typing import Any

import msgspec

from webhooks.news import News

TEST_TYPE = "webhook.test"

# What can stand in a header, and between the full stops of what is signed.
_PLAIN_ID = re.compile(r"[A-Za-z0-9_:-]{1,100}")


def event_id_of(news: News) -> str:
    """The `webhook-id`: the news' own id, or a digest of one that cannot stand in a header."""
    if _PLAIN_ID.fullmatch(news.id):
        return news.id
    return f"news_{hashlib.sha256(news.id.encode()).hexdigest()[:40]}"


def body_of(news: News, *, with_address: bool) -> str:
    """The JSON document: `type`, `timestamp`, `data`. The address only if it is asked for."""
    message = news.message
    data: dict[str, Any] = {
        **news.about,
        "user_id": message.contact.user_id,
        "event_id": message.origin_event_id or None,
    }
    if with_address:
        data["email"] = message.email
    return document(news.type, news.at, data)


def document(kind: str, at: datetime, data: dict[str, Any]) -> str:
    """A body in the shape of Standard Webhooks."""
    return msgspec.json.encode({"type": kind, "timestamp": at, "data": data}).decode()

"""Mailgun: bounces, complaints and unsubscribes of each domain, ordered by address, so that a list
is read to its end every time; and its log of events.

https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/bounces
"""

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

from delivery.bounces import BounceClass
from delivery.headers import message_id
from delivery.models import Message
from webhooks.kinds import Feedback, FeedbackKind
from webhooks.providers.mailgun import parse
from webhooks.reading import as_esp_id, as_moment, text_at
from webhooks.reconciliation.asking import Desk, NotThere, entries_of
from webhooks.reconciliation.entries import entry
from webhooks.reconciliation.sources import Fetch, Page, Source, Window

NAME = "mailgun"

_PAGE = 1_000
_MOST_EVENTS = 300

# Only what failed for good gets onto the list of bounces.
_LISTS: Mapping[str, BounceClass] = {
    "bounces": BounceClass.HARD,
    "complaints": BounceClass.COMPLAINT,
    "unsubscribes": BounceClass.UNSUBSCRIBE,
}


def fetch(name: str, desk: Desk, window: Window, page: str) -> Page:
    """A page of one domain's list; `page` is the domain and Mailgun's own words for the place."""
    domain, _, place = page.partition("?")
    domain = domain or min(desk.domains, default="")
    if not domain:
        return Page([])
    try:
        answer = desk.ask(f"{quote(domain, safe='')}/{name}", place or f"limit={_PAGE}")
    except NotThere:
        # A domain whose mail leaves through others.
        return Page([], _after(domain, desk))
    entries = entries_of(answer, "items")
    told = [(raw, _moment(text_at(raw, "created_at"), window.until)) for raw in entries]
    feedback = [_entry(name, raw, at) for raw, at in told if window.includes(at)]
    # Its query only: where the API is, we know.
    following = urlsplit(text_at(answer, "paging", "next")).query if entries else ""
    is_stuck = following == place
    return Page(
        feedback,
        f"{domain}?{following}" if following and not is_stuck else _after(domain, desk),
        told=entries,
    )


def look_up(desk: Desk, message: Message) -> Sequence[Feedback]:
    """By its Message-ID, which Mailgun keeps: that it was taken, and what became of it."""
    written = message_id(message.pk, message.sending_domain).strip("<>")
    found = desk.ask(
        f"{quote(message.sending_domain, safe='')}/events",
        {"message-id": written, "limit": _MOST_EVENTS},
    )
    events = [
        raw
        for raw in entries_of(found, "items")
        if text_at(raw, "message", "headers", "message-id").strip("<>") == written
    ]
    if not events:
        return []
    handed_over_at = message.handed_over_at or message.created_at
    first = min(as_moment(text_at(raw, "timestamp"), handed_over_at) for raw in events)
    taken = Feedback(
        kind=FeedbackKind.ACCEPTED,
        at=first,
        source=NAME,
        message_uuid=message.pk,
        esp_id=as_esp_id(f"<{written}>"),
    )
    return [taken, *(told for raw in events for told in _as_webhook(raw, handed_over_at))]


def _entry(name: str, raw: Any, at: datetime) -> Feedback:
    words = (name, text_at(raw, "code"), text_at(raw, "error"))
    return entry(NAME, _LISTS[name], address=text_at(raw, "address"), at=at, words=words)


def _as_webhook(raw: Any, otherwise: datetime) -> Sequence[Feedback]:
    """An event of the log is what its webhook would have told."""
    body = json.dumps({"event-data": raw}).encode()
    return [told for told in parse(body, otherwise) if told.kind is not FeedbackKind.OTHER]


def _after(domain: str, desk: Desk) -> str:
    following = min((other for other in desk.domains if other > domain), default="")
    return f"{following}?" if following else ""


def _moment(text: str, otherwise: datetime) -> datetime:
    """A time as in mail: `Fri, 21 Oct 2011 11:02:55 GMT`."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, IndexError, TypeError):
        return as_moment(text, otherwise)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=otherwise.tzinfo)


def _headers(options: Mapping[str, Any]) -> Mapping[str, str]:
    pair = base64.b64encode(f"api:{options['api_key']}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


_FETCHES: Mapping[str, Fetch] = {name: partial(fetch, name) for name in _LISTS}

SOURCE = Source(
    lists=_FETCHES, look_up=look_up, base="https://api.mailgun.net/v3", headers=_headers
)

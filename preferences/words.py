"""The words of a copy's page for what the copy's file calls by the names of columns."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from django.utils.formats import date_format
from django.utils.functional import Promise
from django.utils.timezone import localtime
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

MOST_ROWS = 200
"""Of one part on the page; all of them are in the file."""

_LABELS: Mapping[str, Promise | str] = {
    # Parts.
    "profile": _("Profile"),
    "consents": _("What you agreed to"),
    "events": _("Events"),
    "refused_events": _("Events we did not accept"),
    "suppressions": _("What we do not send you"),
    "campaigns": _("Campaigns"),
    "messages": _("E‑mails"),
    "attempts": _("Attempts to send an e‑mail"),
    "bounces": _("E‑mails that came back"),
    "visits": _("Opens and clicks"),
    "receipts": _("What mail services told us"),
    "outgoing_webhooks": _("What we told others"),
    "copies": _("Copies that were asked for"),
    # Fields.
    "at": _("Time"),
    "created_at": _("Since"),
    "received_at": _("Received"),
    "occurred_at": _("Happened"),
    "first_at": _("First time"),
    "last_at": _("Last time"),
    "requested_at": _("Asked for"),
    "sent_at": _("Sent"),
    "delivered_at": _("Delivered"),
    "opened_at": _("Opened"),
    "clicked_at": _("Clicked"),
    "rejected_at": _("Not sent by the mail service"),
    "bounced_at": _("Came back"),
    "complained_at": _("Reported as spam"),
    "unsubscribed_at": _("Unsubscribed"),
    "expires_at": _("Until"),
    "paused_until": _("Break until"),
    "engaged_at": _("Last opened or clicked"),
    "id": _("Number"),
    "user_id": _("Customer number"),
    "email": _("E‑mail address"),
    "name": _("Name"),
    "attributes": _("What else we know"),
    "region": _("Region"),
    "locale": _("Language"),
    "is_active": _("We may write to you"),
    "may_track": _("We may record opens and clicks"),
    "objected_at": _("No marketing e‑mail since"),
    "do_not_share": _("Not shared with others"),
    "weekly_limit": _("E‑mails in seven days at most"),
    "purpose": _("Purpose"),
    "topic__key": _("Topic"),
    "state": _("State"),
    "source": _("Source"),
    "evidence": _("How we know"),
    "event_id": _("Event"),
    "type": _("Kind"),
    "payload": _("Content"),
    "metadata": _("Technical details"),
    "reason": _("Reason"),
    "problems": _("What was wrong"),
    "times": _("How many times"),
    "scope": _("Reach"),
    "beneath": _("Also because"),
    "campaign__key": _("Campaign"),
    "entry_key": _("Begun by"),
    "exit_reason": _("Ended because"),
    "step_key": _("Step"),
    "template_version__template__key": _("Template"),
    "message": _("E‑mail"),
    "number": _("Attempt"),
    "provider": _("Mail service"),
    "verdict": _("Result"),
    "detail": _("Details"),
    "link__url": _("Link"),
    "actor": _("Who"),
    "endpoint__name": _("Recipient"),
    "code": _("Reason"),
    "body": _("Content"),
    "context": _("Content"),
    "stream": _("Kind"),
    "bounce_class": _("Kind"),
    "origin_campaign": _("Campaign"),
    "origin_event_id": _("Event"),
    "provider__key": _("Mail service"),
    "outcome": _("Result"),
}

Shown = dict[str, Any]


def parts_in_words(copy: Mapping[str, list[Mapping[str, Any]]]) -> Iterator[Shown]:
    """Each part as its title, its rows of labels and values, and whether there are more."""
    for name, rows in copy.items():
        yield {
            "title": label(name),
            "rows": [list(_pairs(row)) for row in rows[:MOST_ROWS]],
            "is_cut": len(rows) > MOST_ROWS,
        }


def label(name: str) -> str:
    """The words for a part or a column; a name nobody gave words to, without its underscores."""
    return str(_LABELS.get(name) or name.replace("_", " ").strip().capitalize())


def _pairs(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in row.items():
        words = in_words(value)
        if words:
            yield label(name), words


def in_words(value: Any) -> str:
    """A value of the file for people: nothing for what is empty, times in the page's language, a
    line for each thing within."""
    if isinstance(value, bool):
        return gettext("Yes") if value else gettext("No")
    if isinstance(value, Mapping | list):
        return "\n".join(_lines(value))
    return "" if value is None else _time(str(value)) or str(value)


def _lines(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        inner: Iterable[tuple[str, Any]] = ((_joined(name, key), v) for key, v in value.items())
    elif isinstance(value, list):
        inner = ((name, entry) for entry in value)
    else:
        words = in_words(value)
        if words:
            yield f"{name}: {words}" if name else words
        return
    for key, entry in inner:
        yield from _lines(entry, key)


def _joined(name: str, key: object) -> str:
    return f"{name} › {key}" if name else str(key)


def _time(text: str) -> str:
    """The moment a text of the file stands for; nothing for any other text."""
    if len(text) < 20 or text[10] != "T":
        return ""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return ""
    return date_format(localtime(moment), "DATETIME_FORMAT") if moment.tzinfo else ""

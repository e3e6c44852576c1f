"""SendGrid: bounces, spam reports, global unsubscribes and invalid addresses, in pages by number;
its list of blocks is about mails, not addresses, and is left alone.

Its log (Email Activity) is an extra that is paid for: without it the answer is 403.
https://www.twilio.com/docs/sendgrid/api-reference/bounces-api/retrieve-all-bounces
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from delivery.bounces import BounceClass, classify_reply
from delivery.models import Message
from webhooks.kinds import Feedback, FeedbackKind
from webhooks.reading import as_address, as_moment, text_at
from webhooks.reconciliation.asking import Desk, NotTold, entries_of
from webhooks.reconciliation.entries import entry
from webhooks.reconciliation.sources import Fetch, Page, Source, Window

NAME = "sendgrid"

_PAGE = 500


def _bounce_class(raw: Any) -> BounceClass:
    """Refusals that were no fault of the address are on another list; some stand on this one."""
    return classify_reply(text_at(raw, "reason"), code=text_at(raw, "status"))


def _always(bounce_class: BounceClass) -> Callable[[Any], BounceClass]:
    return lambda _raw: bounce_class


_LISTS: Mapping[str, Callable[[Any], BounceClass]] = {
    "bounces": _bounce_class,
    "spam_reports": _always(BounceClass.COMPLAINT),
    "unsubscribes": _always(BounceClass.UNSUBSCRIBE),
    "invalid_emails": _always(BounceClass.HARD),
}


def fetch(name: str, desk: Desk, window: Window, page: str) -> Page:
    """A page of one of the lists; `page` is how many entries were read before."""
    offset = int(page or 0)
    since = int(window.since.timestamp()) if window.since is not None else 0
    entries = desk.ask(
        f"suppression/{name}",
        {
            "start_time": since,
            "end_time": int(window.until.timestamp()) + 1,
            "limit": _PAGE,
            "offset": offset,
        },
    )
    if not isinstance(entries, list):
        raise NotTold("an answer in another shape")
    feedback = [
        entry(
            NAME,
            _LISTS[name](raw),
            address=text_at(raw, "email"),
            at=as_moment(text_at(raw, "created"), window.until),
            words=(name, text_at(raw, "status"), text_at(raw, "reason")),
        )
        for raw in entries
    ]
    # To an empty page: how many it gives at a time is its own affair.
    return Page(feedback, str(offset + len(entries)) if entries else "")


def look_up(desk: Desk, message: Message) -> Sequence[Feedback]:
    """By what goes along with every mail and no other mail has."""
    query = f"(unique_args['message_uuid']=\"{message.pk}\")"
    found = desk.ask("messages", {"query": query, "limit": 10})
    handed_over_at = message.handed_over_at or message.created_at
    return [
        Feedback(
            kind=FeedbackKind.ACCEPTED,
            at=as_moment(text_at(raw, "last_event_time"), handed_over_at),
            source=NAME,
            message_uuid=message.pk,
            detail=text_at(raw, "status"),
        )
        for raw in entries_of(found, "messages")
        if _is_to(raw, message)
    ][:1]


def _is_to(raw: object, message: Message) -> bool:
    """Whether it was sent to the message's address: a filter that is not understood finds all."""
    address = as_address(text_at(raw, "to_email"))
    return address is not None and address.normalized == message.email_normalized


_FETCHES: Mapping[str, Fetch] = {name: partial(fetch, name) for name in _LISTS}

SOURCE = Source(
    lists=_FETCHES,
    look_up=look_up,
    base="https://api.sendgrid.com/v3",
    headers=lambda options: {"Authorization": f"Bearer {options['api_key']}"},
)

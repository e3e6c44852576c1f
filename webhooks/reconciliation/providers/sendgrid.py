"""SendGrid: bounces, spam reports, global unsubscribes and invalid addresses, in pages by number;
its list of blocks is about mails, not addresses, and is left alone.

Its log (Email Activity) is an extra that is paid for: without it the answer is 403.
https://www.twilio.com/docs/sendgrid/api-reference/bounces-api/retrieve-all-bounces
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

from delivery.bounces import BounceClass, classify_reply
from delivery.models import Message
from webhooks.kinds import Feedback, FeedbackKind
from webhooks.reading import as_address, as_json, as_moment, at, own_uuid, text_at
from webhooks.reconciliation.asking import Desk, NotThere, NotTold, entries_of
from webhooks.reconciliation.entries import entry
from webhooks.reconciliation.sources import Fetch, Page, Source, Window

NAME = "sendgrid"

_PAGE = 500
_MOST_CANDIDATES = 10


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
    return Page(feedback, str(offset + len(entries)) if entries else "", told=entries)


def look_up(desk: Desk, message: Message) -> Sequence[Feedback]:
    """By what goes along with every mail and no other mail has. The search only names candidates,
    and one that does not understand the filter names anybody: proof is what each of them says of
    itself."""
    query = f"(unique_args['message_uuid']=\"{message.pk}\")"
    found = desk.ask("messages", {"query": query, "limit": _MOST_CANDIDATES})
    handed_over_at = message.handed_over_at or message.created_at
    for raw in entries_of(found, "messages")[:_MOST_CANDIDATES]:
        if _is_to(raw, message) and _is_about(desk, text_at(raw, "msg_id"), message):
            return [
                Feedback(
                    kind=FeedbackKind.ACCEPTED,
                    at=as_moment(text_at(raw, "last_event_time"), handed_over_at),
                    source=NAME,
                    message_uuid=message.pk,
                    detail=text_at(raw, "status"),
                )
            ]
    return []


def _is_to(raw: object, message: Message) -> bool:
    """Whether it was sent to the message's address: others need not be asked about."""
    address = as_address(text_at(raw, "to_email"))
    return address is not None and address.normalized == message.email_normalized


def _is_about(desk: Desk, msg_id: str, message: Message) -> bool:
    """Whether the mail of that id carries this message's own id."""
    if not msg_id:
        return False
    try:
        mail = desk.ask(f"messages/{quote(msg_id, safe='')}")
    except NotThere:
        return False
    # An object, or the text of one: its reference says the one and shows the other.
    carried = at(mail, "unique_args")
    return own_uuid(as_json(carried) if isinstance(carried, str) else carried) == message.pk


_FETCHES: Mapping[str, Fetch] = {name: partial(fetch, name) for name in _LISTS}

SOURCE = Source(
    lists=_FETCHES,
    look_up=look_up,
    base="https://api.sendgrid.com/v3",
    headers=lambda options: {"Authorization": f"Bearer {options['api_key']}"},
)

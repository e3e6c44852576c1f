"""Brevo: the transactional contacts it blocks, newest first, and its log of events.

https://developers.brevo.com/reference/get-transac-blocked-contacts
"""

from collections.abc import Mapping, Sequence

from common.clock import now
from delivery.bounces import BounceClass
from delivery.models import Message
from webhooks.kinds import Feedback, FeedbackKind
from webhooks.reading import as_esp_id, as_moment, list_at, own_uuid, text_at
from webhooks.reconciliation.asking import Desk, NotTold
from webhooks.reconciliation.entries import entry
from webhooks.reconciliation.sources import Page, Source, Window

NAME = "brevo"

_PAGE = 100
_MOST_EVENTS = 500

# `adminBlocked` is somebody of ours who said no there. Whoever is on the list for a reason that is
# not known here is left alone too.
_REASONS: Mapping[str, BounceClass] = {
    "hardBounce": BounceClass.HARD,
    "contactFlaggedAsSpam": BounceClass.COMPLAINT,
    "unsubscribedViaEmail": BounceClass.UNSUBSCRIBE,
    "unsubscribedViaMA": BounceClass.UNSUBSCRIBE,
    "unsubscribedViaApi": BounceClass.UNSUBSCRIBE,
    "adminBlocked": BounceClass.UNSUBSCRIBE,
}


def fetch(desk: Desk, window: Window, page: str) -> Page:
    """A page, until one ends before the window. Its own filter wants dates of the account's time
    zone and refuses tomorrow's, so it is not used."""
    offset = int(page or 0)
    answer = desk.ask("smtp/blockedContacts", {"limit": _PAGE, "offset": offset, "sort": "desc"})
    if not isinstance(answer, dict):
        raise NotTold("an answer in another shape")
    entries = list_at(answer, "contacts")  # Brevo leaves out what is empty
    moments = [as_moment(text_at(raw, "blockedAt"), window.until) for raw in entries]
    feedback = [
        entry(
            NAME,
            _REASONS.get(text_at(raw, "reason", "code"), BounceClass.UNSUBSCRIBE),
            address=text_at(raw, "email"),
            at=at,
            words=(text_at(raw, "reason", "code"), text_at(raw, "reason", "message")),
        )
        for raw, at in zip(entries, moments, strict=True)
        if window.includes(at)
    ]
    is_last = not entries or not window.includes(moments[-1])
    return Page(feedback, "" if is_last else str(offset + len(entries)), told=entries)


def look_up(desk: Desk, message: Message) -> Sequence[Feedback]:
    """Among the events of the address, by the tag of the message or a Message-ID of ours."""
    handed_over_at = message.handed_over_at or message.created_at
    days = (now() - handed_over_at).days + 2
    found = desk.ask(
        "smtp/statistics/events", {"email": message.email, "days": days, "limit": _MOST_EVENTS}
    )
    return [
        Feedback(
            kind=FeedbackKind.ACCEPTED,
            at=as_moment(text_at(raw, "date"), handed_over_at),
            source=NAME,
            message_uuid=message.pk,
            esp_id=as_esp_id(text_at(raw, "messageId")),
            detail=text_at(raw, "event"),
        )
        for raw in list_at(found, "events")
        if _is_about(raw, message)
    ][:1]


def _is_about(raw: object, message: Message) -> bool:
    tags = {text_at(raw, "tag"), *(tag for tag in list_at(raw, "tags") if isinstance(tag, str))}
    by_id = own_uuid(None, text_at(raw, "messageId"))
    return any(str(message.pk) in tag for tag in tags) or by_id == message.pk


SOURCE = Source(
    lists={"blocked": fetch},
    look_up=look_up,
    base="https://api.brevo.com/v3",
    headers=lambda options: {"api-key": options["api_key"]},
)

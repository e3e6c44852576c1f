"""Postmark: the suppressions of each message stream, a stream at a time and each in one piece; the
bounces, which name the mail; and the search in its log.

https://postmarkapp.com/developer/api/suppressions-api, …/bounce-api, …/messages-api
"""

from collections.abc import Sequence
from datetime import timedelta
from urllib.parse import quote

from delivery.bounces import BounceClass
from delivery.models import Message
from webhooks.classification import POSTMARK, classify
from webhooks.kinds import Feedback, FeedbackKind
from webhooks.providers.postmark import SUPPRESSIONS
from webhooks.reading import as_esp_id, as_moment, own_uuid, text_at
from webhooks.reconciliation.asking import Desk, entries_of
from webhooks.reconciliation.entries import entry
from webhooks.reconciliation.sources import Page, Source, Window

NAME = "postmark"

_PAGE = 500
# So far into a list it lets one read.
_FARTHEST = 10_000


def fetch_suppressions(desk: Desk, window: Window, page: str) -> Page:
    """Those of the first stream after the stream `page`."""
    streams = sorted(
        text_at(stream, "ID")
        for stream in entries_of(desk.ask("message-streams"), "MessageStreams")
        if text_at(stream, "MessageStreamType") != "Inbound"
    )
    stream = next((name for name in streams if name > page), "")
    if not stream:
        return Page([])
    path = f"message-streams/{quote(stream, safe='')}/suppressions/dump"
    told = entries_of(desk.ask(path, _since(window)), "Suppressions")
    feedback = [
        entry(
            NAME,
            SUPPRESSIONS.get(text_at(raw, "SuppressionReason"), BounceClass.UNSUBSCRIBE),
            address=text_at(raw, "EmailAddress"),
            at=as_moment(text_at(raw, "CreatedAt"), window.until),
            words=(text_at(raw, "SuppressionReason"), text_at(raw, "Origin"), stream),
        )
        for raw in told
    ]
    return Page(feedback, stream if stream != streams[-1] else "")


def fetch_bounces(desk: Desk, window: Window, page: str) -> Page:
    """A page of the bounces, newest first; `page` is how many were read before. What lies behind
    the ten-thousandth is in no reach, but its address is among the suppressions."""
    offset = int(page or 0)
    told = entries_of(
        desk.ask("bounces", {"count": _PAGE, "offset": offset, **_since(window)}), "Bounces"
    )
    feedback = [
        entry(
            NAME,
            classify(POSTMARK, raw.get("Type")),
            address=text_at(raw, "Email"),
            at=as_moment(text_at(raw, "BouncedAt"), window.until),
            words=(text_at(raw, "Type"), text_at(raw, "Details")),
            esp_id=as_esp_id(raw.get("MessageID")),
        )
        for raw in told
        if isinstance(raw, dict)
    ]
    following = offset + len(told)
    is_last = not told or following + _PAGE > _FARTHEST
    return Page(feedback, "" if is_last else str(following), told=told)


def look_up(desk: Desk, message: Message) -> Sequence[Feedback]:
    """By the metadata that go along with every mail; its log keeps 45 days."""
    found = desk.ask(
        "messages/outbound", {"count": 10, "offset": 0, "metadata_message_uuid": str(message.pk)}
    )
    return [
        Feedback(
            kind=FeedbackKind.ACCEPTED,
            at=as_moment(text_at(raw, "ReceivedAt"), message.handed_over_at or message.created_at),
            source=NAME,
            message_uuid=message.pk,
            esp_id=as_esp_id(text_at(raw, "MessageID")),
            detail=text_at(raw, "Status"),
        )
        for raw in entries_of(found, "Messages")
        if own_uuid(raw.get("Metadata") if isinstance(raw, dict) else None) == message.pk
    ][:1]


def _since(window: Window) -> dict[str, str]:
    """Its dates are those of the American east coast: a day more does no harm."""
    if window.since is None:
        return {}
    return {"fromdate": f"{window.since - timedelta(days=1):%Y-%m-%d}"}


SOURCE = Source(
    lists={"suppressions": fetch_suppressions, "bounces": fetch_bounces},
    look_up=look_up,
    base="https://api.postmarkapp.com",
    headers=lambda options: {
        "X-Postmark-Server-Token": options["server_token"],
        "Accept": "application/json",
    },
)

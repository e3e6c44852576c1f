"""What became known about a mail, told onwards once: `email.*` events in our own inbox, which
campaigns listen to like to any other event."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings

from common.clock import now
from delivery.bounces import FOR_GOOD
from delivery.models import Message
from events.models import OWN_SOURCE
from events.services import submit
from events.wire import build_event
from webhooks.kinds import PREFIX, FeedbackKind
from webhooks.marks import Marked
from webhooks.matching import Match

_CAME_BACK = (FeedbackKind.BOUNCED, FeedbackKind.REJECTED)


@dataclass(frozen=True, slots=True)
class News:
    """Something that became known about a mail, told once however often it came back.

    `id` is the same in every repetition. `data` is what this kind of news adds to `about`; plain
    JSON values and no address.
    """

    id: str
    type: str
    at: datetime
    message: Message
    data: dict[str, Any]

    @property
    def about(self) -> dict[str, Any]:
        """Which mail it was, without an address; None for what does not apply, and `data`."""
        message = self.message
        return {
            "message_id": str(message.pk),
            "campaign": message.origin_campaign or None,
            "step": message.origin_step or None,
            "stream": message.stream,
            "topic": message.topic.key if message.topic is not None else None,
            **self.data,
        }


def news_of(matches: Iterable[Match], marked: Marked) -> list[News]:
    """What of all this was not known before, each thing once, the earliest report of it."""
    found: dict[str, News] = {}
    for match in sorted(matches, key=lambda match: match.feedback.at):
        if match.message is not None and _is_new(match, match.message, marked):
            news = _news(match, match.message)
            found.setdefault(news.id, news)
    return list(found.values())


def _is_new(match: Match, message: Message, marked: Marked) -> bool:
    if _is_bounce(match):
        return (message.pk, str(match.bounce_class)) in marked.bounces
    return (message.pk, match.moment) in marked.moments


def _is_bounce(match: Match) -> bool:
    """What is only put off, by the provider or by us, comes again."""
    if match.feedback.kind is FeedbackKind.REFUSED:
        return match.bounce_class in FOR_GOOD
    return match.is_returned and match.feedback.kind in _CAME_BACK


def _news(match: Match, message: Message) -> News:
    if _is_bounce(match):
        cause = match.bounce_class
        data = {"class": str(cause), "is_permanent": cause in FOR_GOOD}
        return News(
            f"bounced:{message.pk}:{cause}", f"{PREFIX}bounced", match.feedback.at, message, data
        )
    kind = match.feedback.kind
    return News(f"{kind}:{message.pk}", f"{PREFIX}{kind}", match.feedback.at, message, {})


def tell(news: Sequence[News]) -> None:
    """Put it into the inbox, as far as `events.about_mail` asks for it. Shares the fate of the
    caller's transaction.

    A mail that was itself the answer to such an event passes on how many stand behind it; the
    engine ends what would go round for ever.
    """
    wanted = {f"{PREFIX}{kind}" for kind in settings.EMAILAUTO.events.about_mail}
    received_at = now()
    items = [
        build_event(
            source=OWN_SOURCE,
            event_id=item.id,
            type=item.type,
            user_id=item.message.contact.user_id or "",
            stated_at=item.at,
            received_at=received_at,
            payload=item.about | _address(item.message),
            metadata={"depth": item.message.depth + 1},
            content=[item.id],
        )
        for item in news
        if item.type in wanted
    ]
    if items:
        submit(items)


def _address(message: Message) -> dict[str, str]:
    """The person's address of today, where nothing else names them."""
    contact = message.contact
    return {} if contact.user_id or not contact.email else {"email": contact.email}

"""What a piece of feedback is called once it is told onwards: `email.*`, in our own inbox and in
outgoing webhooks."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from delivery.models import Message

PREFIX = "email."
TYPES = (
    "email.delivered",
    "email.opened",
    "email.clicked",
    "email.bounced",
    "email.complained",
    "email.unsubscribed",
)


@dataclass(frozen=True, slots=True)
class News:
    """Something that became known about a mail, told once however often it came back.

    `id` is the same in every repetition. `data` holds plain JSON values and no address.
    """

    id: str
    type: str
    at: datetime
    message: Message
    data: dict[str, Any]

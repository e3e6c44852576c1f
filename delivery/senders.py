"""Which sender, and so which provider, a message leaves through."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django.db.models import Q

from delivery.models import Message, Sender


@dataclass(frozen=True, slots=True)
class Senders:
    """The senders of a batch, their providers loaded."""

    by_id: Mapping[int, Sender]
    default: Sender | None

    def of(self, message: Message) -> Sender | None:
        """The message's own sender, else the default one, else None."""
        if message.sender_id is None:
            return self.default
        return self.by_id.get(message.sender_id)


def load_senders(messages: Iterable[Message]) -> Senders:
    """The senders these messages need. One query."""
    wanted = {message.sender_id for message in messages}
    rows = Sender.objects.filter(Q(pk__in=wanted - {None}) | Q(is_default=True))
    by_id = {sender.pk: sender for sender in rows.select_related("provider")}
    return Senders(by_id, next((s for s in by_id.values() if s.is_default), None))

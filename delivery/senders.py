"""Which sender, and so which provider, a message leaves through."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from common.rows import rows_of
from delivery.models import Message, Provider, Sender

_SENDERS = "SELECT * FROM delivery_sender WHERE id = ANY(%s::bigint[]) OR is_default"
_PROVIDERS = "SELECT * FROM delivery_provider WHERE id = ANY(%s::bigint[])"


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
    """The senders these messages need. Two queries."""
    wanted = [pk for pk in {message.sender_id for message in messages} if pk is not None]
    by_id = {sender.pk: sender for sender in rows_of(Sender, _SENDERS, [wanted])}
    theirs = list({sender.provider_id for sender in by_id.values()})
    providers = {provider.pk: provider for provider in rows_of(Provider, _PROVIDERS, [theirs])}
    for sender in by_id.values():
        sender.provider = providers[sender.provider_id]
    return Senders(by_id, next((s for s in by_id.values() if s.is_default), None))

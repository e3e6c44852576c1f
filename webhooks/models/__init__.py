"""The tables of what comes back, of what is fetched, and of what is told onwards."""

from webhooks.models.mailbox import BounceMailbox
from webhooks.models.outgoing import EVERY_TYPE, OutgoingDelivery, OutgoingEndpoint
from webhooks.models.polls import Poll
from webhooks.models.receipts import Receipt
from webhooks.models.turns import Turn

__all__ = [
    "EVERY_TYPE",
    "BounceMailbox",
    "OutgoingDelivery",
    "OutgoingEndpoint",
    "Poll",
    "Receipt",
    "Turn",
]

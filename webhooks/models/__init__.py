"""The tables of what comes back, and of what is told onwards."""

from webhooks.models.outgoing import EVERY_TYPE, OutgoingDelivery, OutgoingEndpoint
from webhooks.models.receipts import Receipt

__all__ = ["EVERY_TYPE", "OutgoingDelivery", "OutgoingEndpoint", "Receipt"]

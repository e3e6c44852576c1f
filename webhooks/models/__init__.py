"""The tables of what comes back, of what is fetched, and of what is told onwards."""

from webhooks.models.polls import Poll
from webhooks.models.receipts import Receipt

__all__ = ["Poll", "Receipt"]

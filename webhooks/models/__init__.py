"""The tables of what comes back, and of what is told onwards."""

from webhooks.models.receipts import Receipt

__all__ = ["Receipt"]

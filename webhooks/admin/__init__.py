"""The admin of what comes back, and of what is told onwards."""

from webhooks.admin import receipts

__all__ = ["receipts"]

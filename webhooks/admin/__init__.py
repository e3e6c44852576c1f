"""The admin of what comes back, and of what is told onwards."""

from webhooks.admin import deliveries, endpoints, receipts

__all__ = ["deliveries", "endpoints", "receipts"]

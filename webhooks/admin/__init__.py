"""The admin of what comes back, of what is fetched, and of what is told onwards."""

from webhooks.admin import deliveries, endpoints, polls, receipts

__all__ = ["deliveries", "endpoints", "polls", "receipts"]

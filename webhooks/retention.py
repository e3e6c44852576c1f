"""What is no longer kept of what came back."""

from common.retention import purge_received
from webhooks.states import ReceiptState

KEPT_DAYS = 90
"""Far longer than any provider repeats a call; what a receipt did stays with the message."""


def purge_receipts(*, most: int = 1_000_000) -> int:
    """Delete applied receipts past their time; returns how many went, at most about `most`. Dead
    ones stay until somebody decides."""
    applied = [ReceiptState.APPLIED]
    return purge_received("webhooks_receipt", applied, days=KEPT_DAYS, most=most)

"""The states of a receipt, and of what is told onwards."""

from django.db import models


class ReceiptState(models.TextChoices):
    """`pending` until applied; `parked` while the message it names may still become known; `dead`
    after five failed attempts, replayable."""

    PENDING = "pending"
    PARKED = "parked"
    APPLIED = "applied"
    DEAD = "dead"


DUE_STATES = (ReceiptState.PENDING, ReceiptState.PARKED)


class OutgoingState(models.TextChoices):
    """`pending` until the receiver answered 2xx; `dead` after the last attempt, replayable;
    `withheld` for good when the person no longer wants anything about them shared."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    WITHHELD = "withheld"

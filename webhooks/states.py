"""The states of a receipt."""

from django.db import models


class ReceiptState(models.TextChoices):
    """`pending` until applied; `parked` while the message it names may still become known; `dead`
    after five failed attempts, replayable."""

    PENDING = "pending"
    PARKED = "parked"
    APPLIED = "applied"
    DEAD = "dead"


DUE_STATES = (ReceiptState.PENDING, ReceiptState.PARKED)

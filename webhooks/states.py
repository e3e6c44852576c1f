"""The states of a receipt."""

from django.db import models


class ReceiptState(models.TextChoices):
    """`pending` until applied; `dead` after five failed attempts, replayable."""

    PENDING = "pending"
    APPLIED = "applied"
    DEAD = "dead"

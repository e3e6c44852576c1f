"""What there is to send."""

from typing import ClassVar

from django.db import models
from django.db.models import Q


class Order(models.Model):
    """A receipt is due until it is sent."""

    email = models.EmailField()
    name = models.CharField(max_length=200)
    number = models.CharField(max_length=20)
    sent_at = models.DateTimeField(null=True)

    # Written out for the type checker, which sees the project's settings and not this one's.
    objects: ClassVar[models.Manager["Order"]] = models.Manager()

    class Meta:
        app_label = "naive"
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["id"], name="order_due", condition=Q(sent_at=None)),
        ]

    def __str__(self) -> str:
        return self.number

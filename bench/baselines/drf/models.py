"""The inbox as a plain model: the columns a posted event fills, and the constraint and indexes
that `events.models.Event` has on them. `state` is there for the partial index of what is due."""

from typing import ClassVar

from django.db import models
from django.db.models import Q


class Event(models.Model):
    """One posted event."""

    source = models.CharField(max_length=100)
    event_id = models.CharField(max_length=200)
    type = models.CharField(max_length=200)
    user_id = models.CharField(max_length=200, blank=True)
    occurred_at = models.DateTimeField()
    received_at = models.DateTimeField(auto_now_add=True)
    payload = models.JSONField(default=dict)
    metadata = models.JSONField(default=dict)
    state = models.CharField(max_length=10, default="pending")

    # Written out for the type checker, which sees the project's settings and not this one's.
    objects: ClassVar[models.Manager["Event"]] = models.Manager()

    class Meta:
        app_label = "drf"
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["source", "event_id"], name="drf_event_once"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["received_at", "id"], name="drf_event_due", condition=Q(state="pending")
            ),
            models.Index(fields=["type", "-id"], name="drf_event_newest_of_type"),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.event_id}"

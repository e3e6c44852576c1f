"""Receipts: what providers and mail servers told us, kept before anything is done with it."""

from typing import ClassVar, Self

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from webhooks.states import DUE_STATES, ReceiptState


class ReceiptQuerySet(models.QuerySet["Receipt"]):
    """Row-level rules of receipts."""

    def due(self) -> Self:
        """Not done, not leased by a living worker, not waiting for a later attempt or look."""
        return self.filter(
            Q(claimed_until__isnull=True) | Q(claimed_until__lt=Now()),
            state__in=DUE_STATES,
            due_at__lte=Now(),
        )

    def has_due(self) -> bool:
        """Whether anything is due. Fresh ones and those tried before have an index each, so each is
        asked; a question that names neither would be a scan of all that was ever applied."""
        due = self.due()
        return due.filter(attempts=0).exists() or due.filter(attempts__gt=0).exists()


class Receipt(models.Model):
    """What an authentic webhook call told, byte for byte: each event of an array is one. Or a mail
    from the bounce mailbox, whose proof is in it or missing."""

    provider = models.CharField(max_length=30)
    provider_event_id = models.CharField(max_length=200)
    body = models.BinaryField()
    content_type = models.CharField(max_length=100, blank=True)
    received_at = models.DateTimeField(db_default=Now())
    state = models.CharField(
        max_length=10, choices=ReceiptState.choices, default=ReceiptState.PENDING
    )
    outcome = models.JSONField(default=list)
    due_at = models.DateTimeField(db_default=Now())
    attempts = models.PositiveSmallIntegerField(default=0)
    claimed_until = models.DateTimeField(null=True, blank=True)
    lease_owner = models.CharField(max_length=80, blank=True)
    error = models.TextField(blank=True)

    objects = ReceiptQuerySet.as_manager()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["provider", "provider_event_id"], name="receipt_once_per_provider"
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["due_at", "id"],
                name="receipt_due",
                condition=Q(state__in=["pending", "parked"], attempts=0),
            ),
            models.Index(
                fields=["due_at", "id"],
                name="receipt_tried",
                condition=Q(state__in=["pending", "parked"], attempts__gt=0),
            ),
            # Of those that were applied, nearly all, the newest are found by id.
            models.Index(
                fields=["state", "-id"],
                name="receipt_by_state",
                condition=Q(state__in=["pending", "parked", "dead"]),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.provider_event_id}"

"""Outgoing webhooks: who is told what, and what became of each telling."""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from common.clock import now
from contacts.models import Contact
from webhooks.kinds import PREFIX
from webhooks.states import OutgoingState

EVERY_TYPE = f"{PREFIX}*"


class OutgoingEndpoint(models.Model):
    """A receiver of ours: its URL, what it wants to hear, and how it has answered of late.

    `secret` and `previous_secret` are encrypted; `webhooks.outgoing.secrets` reads them.
    `failing_since` and `failures` are of the present row of failures, and empty after a success.
    """

    name = models.CharField(max_length=100)
    url = models.CharField("URL", max_length=500)
    types = ArrayField(models.CharField(max_length=60))
    with_address = models.BooleanField(
        _("tell the e-mail address"),
        default=False,
        help_text=_("Without it people are named by user id and message only."),
    )
    is_active = models.BooleanField(default=True, editable=False)
    disabled_at = models.DateTimeField(null=True, blank=True, editable=False)
    disabled_why = models.CharField(max_length=200, blank=True, editable=False)
    secret = models.TextField(editable=False)
    previous_secret = models.TextField(blank=True, editable=False)
    previous_until = models.DateTimeField(null=True, blank=True, editable=False)
    failures = models.PositiveIntegerField(default=0, editable=False)
    failing_since = models.DateTimeField(null=True, blank=True, editable=False)
    resume_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text=_("It asked to be left alone until then.")
    )
    delivered_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering: ClassVar[list[str]] = ["name", "id"]
        verbose_name = "outgoing webhook"

    def __str__(self) -> str:
        return self.name

    @property
    def signs_twice(self) -> bool:
        """Whether the secret before the present one still signs as well."""
        return self.previous_until is not None and self.previous_until > now()

    def wants(self, kind: str) -> bool:
        """Whether news of this type are for it."""
        return kind in self.types or (EVERY_TYPE in self.types and kind.startswith(PREFIX))


class OutgoingDelivery(models.Model):
    """One piece of news for one endpoint. `event_id` is the `webhook-id` of every attempt.

    `body` is what is sent, to the byte. With the contact goes what was to be told about them.
    """

    endpoint = models.ForeignKey(
        OutgoingEndpoint, on_delete=models.CASCADE, related_name="deliveries"
    )
    event_id = models.CharField(max_length=100)
    type = models.CharField(max_length=60)
    contact = models.ForeignKey(Contact, on_delete=models.CASCADE, null=True, related_name="+")
    body = models.TextField()
    state = models.CharField(
        max_length=10, choices=OutgoingState.choices, default=OutgoingState.PENDING
    )
    attempts = models.PositiveSmallIntegerField(default=0)
    due_at = models.DateTimeField(db_default=Now())
    lease_owner = models.CharField(max_length=80, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    tried_at = models.DateTimeField(null=True, blank=True)
    status = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text=_("The last answer's; empty: there was none.")
    )
    answer = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    settled_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "outgoing delivery"
        verbose_name_plural = "outgoing deliveries"
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["endpoint", "event_id"], name="outgoing_once"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["endpoint", "due_at", "id"],
                name="outgoing_due",
                condition=Q(state="pending"),
            ),
            models.Index(
                fields=["settled_at"],
                name="outgoing_settled",
                condition=Q(state__in=["delivered", "withheld"]),
            ),
            models.Index(fields=["state", "-id"], name="outgoing_by_state"),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.event_id}"

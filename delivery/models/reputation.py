"""What came back, how much went out, and what was forgiven: the breaker's memory."""

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from delivery.bounces import RETURNED
from delivery.models.messages import Message
from delivery.models.providers import Provider
from delivery.models.switches import Switch


class Bounce(models.Model):
    """A message that came back or was put off by its receiver, once per class; whoever told us.

    The receiving server's own answer at the hand-over is `is_applied` once feedback has acted. It
    names the address it was about, which may not be the message's any more.
    """

    message = models.ForeignKey(
        Message, on_delete=models.CASCADE, related_name="bounces", db_index=False
    )
    bounce_class = models.CharField(
        max_length=20, choices=[(c.value, c.value.replace("_", " ")) for c in sorted(RETURNED)]
    )
    detail = models.CharField(max_length=500, blank=True)
    source = models.CharField(max_length=30)
    email = models.CharField(max_length=254, blank=True, db_default="")
    email_normalized = models.CharField(max_length=254, blank=True, db_default="")
    at = models.DateTimeField(db_default=Now(), help_text=_("The first time."))
    last_at = models.DateTimeField(
        null=True, blank=True, help_text=_("The last time. Empty: there was one only.")
    )
    is_applied = models.BooleanField(default=False)
    retry_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text=_("It could not be acted on; then it is tried again."),
    )

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["message", "bounce_class"], name="bounce_once"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["at"], name="bounce_at"),
            models.Index(
                fields=["last_at"], name="bounce_again", condition=Q(last_at__isnull=False)
            ),
            models.Index(fields=["id"], name="bounce_due", condition=Q(is_applied=False)),
        ]

    def __str__(self) -> str:
        return f"{self.bounce_class} {self.message_id}"


class Tally(models.Model):
    """How much was handed over in ten minutes that are over. See `delivery.tallies`."""

    starts_at = models.DateTimeField()
    provider = models.ForeignKey(Provider, on_delete=models.CASCADE, related_name="+")
    campaign = models.CharField(max_length=100, blank=True)
    stream = models.CharField(max_length=20)
    domain = models.CharField(max_length=253)
    mailboxes = models.CharField(max_length=20)
    sent = models.PositiveIntegerField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["starts_at", "provider", "campaign", "stream", "domain", "mailboxes"],
                name="tally_once",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.campaign} {self.domain} {self.starts_at:%Y-%m-%d %H:%M}"


class Pardon(models.Model):
    """From when on mail counts again of what was at fault and has been let go on; `pauses` so many
    times in a row by itself, because its pause was over."""

    target = models.CharField(max_length=20, choices=Switch.Target.choices)
    key = models.CharField(max_length=300)
    at = models.DateTimeField()
    pauses = models.PositiveSmallIntegerField(default=0)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["target", "key"], name="one_pardon_per_target"),
        ]

    def __str__(self) -> str:
        return f"{self.target} {self.key}"

"""What stops mail, or slows it down."""

from typing import ClassVar

from django.core.validators import MinValueValidator
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from delivery.states import Reason


class Switch(models.Model):
    """A stop or a slow-down that the gate obeys: of everything, of one campaign, of one provider.

    Campaigns live above delivery, so a paused campaign says so by a row here, written in the
    transaction that pauses it.
    """

    class Target(models.TextChoices):
        EVERYTHING = "everything", _("Everything")
        CAMPAIGN = "campaign", _("One campaign")
        PROVIDER = "provider", _("One provider")
        DOMAIN = "domain", _("One sending domain")
        STREAM = "stream", _("One stream of a sending domain")
        MAILBOXES = "mailboxes", _("One stream of a sending domain to one mailbox provider")

    target = models.CharField(max_length=20, choices=Target.choices)
    key = models.CharField(
        max_length=300, blank=True, help_text=_("The campaign's or provider's key.")
    )
    reason = models.CharField(max_length=30, choices=Reason.choices, default=Reason.KILL_SWITCH)
    note = models.CharField(max_length=200, blank=True)
    per_hour = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text=_("So many mails an hour may leave all the same. Empty: none."),
    )
    until = models.DateTimeField(
        null=True, blank=True, help_text=_("Then it is lifted by itself. Empty: by hand.")
    )
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["target", "key"], name="one_switch_per_target"),
        ]
        verbose_name_plural = "switches"

    def __str__(self) -> str:
        return f"{self.get_target_display()} {self.key}".strip()

    @property
    def is_stop(self) -> bool:
        """Nothing leaves; otherwise so many an hour do."""
        return self.per_hour is None

    @property
    def in_words(self) -> str:
        """What it does, for people."""
        if self.per_hour is None:
            return f"Stopped: {self}"
        return f"Slowed down to {self.per_hour:,} an hour: {self}"

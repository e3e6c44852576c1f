"""What is remembered of the bounce mailbox from one reading to the next."""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils.translation import gettext_lazy as _


class BounceMailbox(models.Model):
    """A folder that was read, by a digest of where it is, and how that went of late.

    UIDs mean something together with `uid_validity` only: with another one they are forgotten.
    """

    account = models.CharField(max_length=64, primary_key=True)
    uid_validity = models.BigIntegerField(null=True, blank=True)
    kept = ArrayField(
        models.BigIntegerField(),
        default=list,
        help_text=_("Mails that are receipts here, and are still in the folder."),
    )
    put_off = ArrayField(
        models.BigIntegerField(),
        default=list,
        help_text=_("Mails at which a session broke off: they come after all others."),
    )
    failures = models.PositiveIntegerField(default=0, help_text=_("In a row."))
    last_ok_at = models.DateTimeField(null=True, blank=True)
    last_error = models.CharField(max_length=200, blank=True)

    objects: ClassVar[models.Manager["BounceMailbox"]] = models.Manager()

    class Meta:
        verbose_name_plural = "bounce mailboxes"

    def __str__(self) -> str:
        return self.account

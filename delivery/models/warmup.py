"""Getting mailbox providers used to a sending domain."""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.core.validators import MinLengthValidator
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from delivery.models.providers import Provider


class WarmupPlan(models.Model):
    """How much may be sent on each day; behind the last one there is no limit."""

    key = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=100)
    days = ArrayField(
        models.PositiveIntegerField(),
        validators=[MinLengthValidator(1)],
        help_text=_("Mails per day and mailbox provider, the first day first; with commas."),
    )

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]

    def __str__(self) -> str:
        return self.name


class Warmup(models.Model):
    """A sending domain that is being warmed up through a provider, with each mailbox provider for
    itself. See `delivery.warmup`."""

    provider = models.ForeignKey(Provider, on_delete=models.CASCADE, related_name="warmups")
    domain = models.CharField(max_length=253, help_text=_("Of the senders' addresses."))
    plan = models.ForeignKey(WarmupPlan, on_delete=models.PROTECT, related_name="+")
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["provider", "domain"], name="one_warmup_per_way"),
        ]
        verbose_name = "warm-up"

    def __str__(self) -> str:
        return f"{self.domain} through {self.provider}"


class WarmupStage(models.Model):
    """How far it has got with one mailbox provider. `stage` 0 is the plan's first day."""

    warmup = models.ForeignKey(Warmup, on_delete=models.CASCADE, related_name="stages")
    mailboxes = models.CharField(max_length=30)
    stage = models.PositiveSmallIntegerField(default=0)
    judged_on = models.DateField(help_text=_("The last day (UTC) that was looked back on."))
    used_on = models.DateField(null=True, help_text=_("The last day with mail."))
    note = models.CharField(max_length=200, blank=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["warmup", "mailboxes"], name="one_stage_per_mailbox_provider"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.mailboxes}: day {self.stage + 1}"

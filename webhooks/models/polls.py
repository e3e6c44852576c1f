"""Polls: how far the reading of each provider's lists has come."""

from typing import ClassVar, Self

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from delivery.models import Provider


class PollQuerySet(models.QuerySet["Poll"]):
    """Row-level rules of polls."""

    def due(self) -> Self:
        """Not leased by a living worker, not waiting for its time."""
        return self.filter(Q(claimed_until__isnull=True) | Q(claimed_until__lt=Now())).filter(
            due_at__lte=Now()
        )


class Poll(models.Model):
    """One list of one provider. A run reads it page by page; what it has applied stays applied,
    and whoever goes on after a crash begins with the page that was not done.

    `page` is the provider's own word for the place; at Mailgun it names an address, so nobody is
    shown it, and it is gone when the run is over.
    """

    provider = models.ForeignKey(Provider, on_delete=models.CASCADE, related_name="polls")
    source = models.CharField(
        max_length=20,
        help_text=_("The provider's kind when it was asked: another is another list."),
    )
    list = models.CharField(max_length=40)
    since = models.DateTimeField(
        null=True, blank=True, help_text=_("What was listed before then is applied.")
    )
    until = models.DateTimeField(
        null=True, blank=True, help_text=_("When the run began that is not over yet.")
    )
    page = models.TextField(blank=True)
    pages = models.PositiveIntegerField(default=0, help_text=_("Read in the run under way."))
    page_digest = models.CharField(
        max_length=64, blank=True, help_text=_("Of what was told the last time, to know it again.")
    )
    refusals = models.PositiveSmallIntegerField(
        default=0, help_text=_("Of this page, in a row; outages and limits are none.")
    )
    due_at = models.DateTimeField(db_default=Now())
    claimed_until = models.DateTimeField(null=True, blank=True)
    lease_owner = models.CharField(max_length=80, blank=True)
    failures = models.PositiveSmallIntegerField(default=0, help_text=_("In a row."))
    last_run_at = models.DateTimeField(null=True, blank=True)
    last_ok_at = models.DateTimeField(null=True, blank=True)
    last_error = models.CharField(max_length=200, blank=True)
    entries = models.PositiveIntegerField(default=0, help_text=_("Read in the latest run."))
    restored = models.PositiveIntegerField(
        default=0, help_text=_("Of them: not suppressed here until then.")
    )

    objects = PollQuerySet.as_manager()

    class Meta:
        ordering: ClassVar[list[str]] = ["provider", "source", "list"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["provider", "source", "list"], name="poll_once_per_list"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.source} {self.list}"

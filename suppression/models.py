"""Who must not be mailed, by address."""

from typing import ClassVar, Self

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from suppression.states import ALL, SuppressionReason


class SuppressionQuerySet(models.QuerySet["Suppression"]):
    """Row-level rules of suppressions."""

    def in_force(self) -> Self:
        """Those that have not run out, by the database's clock."""
        return self.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=Now()))


class Suppression(models.Model):
    """One address in one scope.

    The hash is what counts and stays when the clear address is erased.
    """

    address_hash = models.BinaryField(max_length=32, editable=False)
    email = models.CharField(max_length=254, blank=True)
    scope = models.CharField(
        max_length=120,
        default=ALL,
        help_text=_("all · marketing · topic:<key>"),
    )
    reason = models.CharField(
        max_length=20, choices=SuppressionReason.choices, default=SuppressionReason.MANUAL
    )
    source = models.CharField(max_length=100, help_text=_("Who or what asked for it."))
    evidence = models.TextField(blank=True)
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(
        null=True, blank=True, help_text=_("From then on it is tried again; empty: never.")
    )

    objects = SuppressionQuerySet.as_manager()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["address_hash", "scope"], name="suppressed_once"),
            models.CheckConstraint(
                condition=Q(scope__in=["all", "marketing"]) | Q(scope__startswith="topic:"),
                name="suppression_scope_known",
            ),
            models.CheckConstraint(
                condition=Q(reason=SuppressionReason.SOFT_LIMIT) | Q(expires_at__isnull=True),
                name="only_the_soft_limit_expires",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_reason_display()} ({self.scope})"

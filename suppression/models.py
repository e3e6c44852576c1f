"""Who must not be mailed, by address."""

from typing import ClassVar, Self

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from suppression.states import ALL, RANK, SuppressionReason


class SuppressionQuerySet(models.QuerySet["Suppression"]):
    """Row-level rules of suppressions."""

    def in_force(self) -> Self:
        """Those that have not run out, by the database's clock."""
        return self.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=Now()))


class Suppression(models.Model):
    """One address in one scope, for the strongest of its reasons.

    The hash is what counts and stays when the clear address is erased. `beneath` holds
    `{"reason", "source", "evidence"}` of each weaker reason that does not pass by itself.
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
    beneath = models.JSONField(
        default=list,
        editable=False,
        help_text=_("Weaker reasons: they count again when the stronger one is lifted."),
    )
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

    @property
    def reasons(self) -> set[str]:
        """All of them."""
        return {self.reason, *(entry["reason"] for entry in self.beneath)}

    def put_beneath(self, reason: str, source: str, evidence: str) -> None:
        """Remember a weaker reason. The soft limit is none: it passes by itself."""
        if reason != SuppressionReason.SOFT_LIMIT:
            self.beneath.append({"reason": str(reason), "source": source, "evidence": evidence})
            self.beneath.sort(key=lambda entry: RANK[entry["reason"]])

    def lift(self, reason: SuppressionReason) -> bool:
        """Take one reason away, the strongest that is left counts; False when none is."""
        if self.reason != reason:
            self.beneath = [entry for entry in self.beneath if entry["reason"] != reason]
            return True
        if not self.beneath:
            return False
        next_one, *self.beneath = self.beneath
        self.reason, self.source = next_one["reason"], next_one["source"]
        self.evidence, self.expires_at = next_one["evidence"], None
        return True

    def forget(self) -> None:
        """Keep the hash and the reasons, and no word of what could name the person."""
        self.email = self.evidence = ""
        self.beneath = [{**entry, "evidence": ""} for entry in self.beneath]

"""Templates and their versions."""

from typing import Any, ClassVar

from django.conf import settings
from django.db import models, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from content.exceptions import VersionIsFinal


class Template(models.Model):
    """A mail a marketer writes. What is sent is its published version."""

    key = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=100)
    published = models.ForeignKey(
        "TemplateVersion",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        editable=False,
        related_name="+",
    )

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]

    def __str__(self) -> str:
        return self.name


class VersionQuerySet(models.QuerySet["TemplateVersion"]):
    """Refuses what would change what people were sent."""

    def update(self, **values: Any) -> int:
        if values.keys() & TemplateVersion.WORDING:
            self._refuse_published()
        return super().update(**values)

    def delete(self) -> tuple[int, dict[str, int]]:
        self._refuse_published()
        return super().delete()

    def _refuse_published(self) -> None:
        if self.filter(published_at__isnull=False).exists():
            raise VersionIsFinal("A published version is among them; open a draft instead.")


class TemplateVersion(models.Model):
    """One wording. A draft may be edited; once published it never changes again, so that a
    message can always be shown as it was sent."""

    WORDING: ClassVar[frozenset[str]] = frozenset(
        {"template", "template_id", "number", "subject", "preheader", "html", "text"}
    )

    template = models.ForeignKey(Template, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField(editable=False)
    subject = models.CharField(max_length=500, help_text=_("Liquid, e.g. Receipt #{{ order.id }}"))
    preheader = models.CharField(
        max_length=300, blank=True, help_text=_("The line an inbox shows behind the subject.")
    )
    html = models.TextField(verbose_name="HTML", help_text=_("Liquid in HTML, without the frame."))
    text = models.TextField(
        blank=True, help_text=_("Liquid in plain text. Empty: made from the HTML.")
    )
    published_at = models.DateTimeField(null=True, blank=True, editable=False)
    published_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        editable=False,
        related_name="+",
    )
    created_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[models.Manager["TemplateVersion"]] = VersionQuerySet.as_manager()

    class Meta:
        ordering: ClassVar[list[str]] = ["-number"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["template", "number"], name="version_number_once"),
            models.UniqueConstraint(
                fields=["template"],
                condition=Q(published_at__isnull=True),
                name="one_draft_per_template",
            ),
        ]

    def __str__(self) -> str:
        state = "draft" if self.published_at is None else f"version {self.number}"
        return f"{self.template}, {state}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """As usual for a draft; raises `VersionIsFinal` when the stored row is published, also
        when this copy of it was read before."""
        with transaction.atomic():
            if not self._state.adding:
                self._refuse_published()
            super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """As usual for a draft; raises `VersionIsFinal` for a published version."""
        with transaction.atomic():
            self._refuse_published()
            return super().delete(*args, **kwargs)

    def forget(self) -> None:
        """Delete a published version that nothing was sent from; raises `ProtectedError` for one
        that a message or its template refers to."""
        super().delete()

    def _refuse_published(self) -> None:
        # The lock makes a save wait for a publication that is under way.
        stored = TemplateVersion.objects.filter(pk=self.pk).select_for_update(no_key=True)
        if stored.values_list("published_at", flat=True).first() is not None:
            raise VersionIsFinal(f"{self} is published; open a draft instead.")

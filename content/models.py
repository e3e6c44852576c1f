"""Templates and their versions."""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _


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


class TemplateVersion(models.Model):
    """One wording. A draft may be edited; once published it never changes again, so that a
    message can always be shown as it was sent."""

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

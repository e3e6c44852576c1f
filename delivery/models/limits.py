"""What has been used of a limit."""

from typing import ClassVar

from django.db import models


class Quota(models.Model):
    """Hand-overs promised within one hour or day against one limit. See `delivery.quotas`."""

    name = models.CharField(max_length=400)
    starts_at = models.DateTimeField()
    most = models.PositiveIntegerField()
    used = models.PositiveIntegerField(default=0)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["name", "starts_at"], name="quota_once_per_window"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["starts_at"], name="quota_by_age"),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.starts_at:%Y-%m-%d %H:%M}"

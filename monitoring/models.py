"""Signs of life."""

from django.db import models
from django.db.models.functions import Now


class Heartbeat(models.Model):
    """When a part of the machinery last did its work, by the database's clock.

    A worker process can live on, answer pings and consume nothing (celery/celery#8030 and its
    successors); progress is the only proof of life.
    """

    name = models.CharField(max_length=60, primary_key=True)
    at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.name

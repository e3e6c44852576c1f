"""Turns: who does what only one worker at a time may do."""

from django.db import models


class Turn(models.Model):
    """A piece of work that is one worker's until its lease ends, by the database's clock.

    A row, no lock of a session: behind a pooler a session is nobody's, and a worker that hangs
    keeps its own for ever.
    """

    name = models.CharField(max_length=40, primary_key=True)
    lease_owner = models.CharField(max_length=80, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name

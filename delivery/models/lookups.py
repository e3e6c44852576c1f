"""What providers' logs said about messages of which nobody knows whether they were taken."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from delivery.models.messages import Message


class LookUp(models.Model):
    """The search for one message in its provider's log, some times at growing distances.

    Taking it moves `due_at` on, which is lease enough: a search that is lost is made again then.
    """

    class Result(models.TextChoices):
        """Only `found` proves anything."""

        NOT_YET = "", _("not looked up yet")
        FOUND = "found", _("found: the provider has it")
        NOT_FOUND = "not_found", _("not found, which proves nothing")
        NOT_TOLD = "not_told", _("the provider did not tell")

    message = models.OneToOneField(
        Message, on_delete=models.CASCADE, primary_key=True, related_name="look_up"
    )
    attempt = models.PositiveSmallIntegerField(help_text=_("The hand-over it is about."))
    tries = models.PositiveSmallIntegerField(default=0)
    due_at = models.DateTimeField()
    last_at = models.DateTimeField(null=True, blank=True)
    result = models.CharField(
        max_length=12, choices=Result.choices, blank=True, default=Result.NOT_YET
    )
    detail = models.CharField(max_length=200, blank=True)

    def __str__(self) -> str:
        return f"look-up of {self.message_id}: {self.get_result_display()}"

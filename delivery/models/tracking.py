"""Where tracked links lead, and who followed them."""

from typing import ClassVar
from uuid import UUID

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from delivery.models.messages import Message
from delivery.states import Actor


class Link(models.Model):
    """An address that tracked links lead to, once for all mails that name it.

    Its id is made from the address, so that a mail has the same bytes on every call, and the
    address of an id never changes.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    url = models.TextField()
    used_on = models.DateField(help_text="The last day on which a mail with it was made.")

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["used_on"], name="link_used_on"),
        ]

    def __str__(self) -> str:
        return self.url


class Visit(models.Model):
    """An open (without a link) or a click of a tracked mail, whoever did it.

    `actor` is empty until it is judged, some seconds later: what tells a machine from a person is
    what else happens at the same time. What the request said of itself goes with the judgement.
    """

    message = models.ForeignKey(Message, on_delete=models.CASCADE, related_name="visits")
    link = models.ForeignKey(
        Link, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    link_id: UUID | None
    fingerprint = models.BinaryField(help_text="The same of what is kept once in a few seconds.")
    client = models.BinaryField(help_text="The same of one program that visits one message.")
    user_agent = models.CharField(max_length=300, blank=True)
    is_head = models.BooleanField(default=False)
    is_prefetch = models.BooleanField(default=False)
    at = models.DateTimeField(db_default=Now())
    due_at = models.DateTimeField()
    actor = models.CharField(max_length=10, choices=Actor.choices, blank=True)
    reason = models.CharField(max_length=60, blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["message", "fingerprint"], name="visit_once"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["message", "at"], name="visit_of_message"),
            models.Index(fields=["due_at", "id"], name="visit_due", condition=Q(actor="")),
            models.Index(fields=["link"], name="visit_of_link"),
        ]

    def __str__(self) -> str:
        return f"{'open' if self.link_id is None else 'click'} {self.message_id}"

    @property
    def tone(self) -> str:
        """How the admin colours who it was."""
        return {Actor.PERSON: "green", Actor.PROXY: "blue", "": "amber"}.get(self.actor, "grey")

"""People, the topics they may hear about, and what they said about it."""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from contacts.states import ConsentState, TopicPolicy


class Contact(models.Model):
    """A person, known by the producers' user id, by address, or by both; each is unique."""

    user_id = models.CharField(max_length=200, null=True, blank=True, unique=True)
    email = models.CharField(max_length=254, blank=True)
    email_normalized = models.CharField(
        max_length=254, null=True, blank=True, unique=True, editable=False
    )
    name = models.CharField(max_length=200, blank=True)
    attributes = models.JSONField(default=dict, blank=True)
    region = models.CharField(
        max_length=40, blank=True, help_text=_("Where the person's data belongs, e.g. eu.")
    )
    is_active = models.BooleanField(
        default=True, help_text=_("Inactive people are never mailed, whatever the stream.")
    )
    engaged_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text=_("When they last opened or clicked.")
    )
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["-id"], name="contact_newest"),
        ]

    def __str__(self) -> str:
        return self.name or self.user_id or f"contact {self.pk}"


class Topic(models.Model):
    """What marketing mail is about, in words a recipient understands."""

    key = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=100)
    description = models.CharField(
        max_length=300, blank=True, help_text=_("Printed below its mails: why people get them.")
    )
    policy = models.CharField(
        max_length=10, choices=TopicPolicy.choices, default=TopicPolicy.OPT_IN
    )

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]

    def __str__(self) -> str:
        return self.name


class Consent(models.Model):
    """One line of the consent ledger: who said what about which topic, when and how we know.

    Append-only: `record_consent` writes it, nothing changes it.
    """

    contact = models.ForeignKey(Contact, on_delete=models.CASCADE, related_name="consents")
    topic = models.ForeignKey(Topic, on_delete=models.PROTECT, related_name="+")
    state = models.CharField(max_length=10, choices=ConsentState.choices)
    source = models.CharField(max_length=100)
    evidence = models.TextField(blank=True)
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]

    def __str__(self) -> str:
        return f"{self.topic}: {self.state}"


class Subscription(models.Model):
    """The newest line of the ledger per contact and topic, written with it."""

    contact = models.ForeignKey(Contact, on_delete=models.CASCADE, related_name="subscriptions")
    topic = models.ForeignKey(Topic, on_delete=models.PROTECT, related_name="subscriptions")
    state = models.CharField(max_length=10, choices=ConsentState.choices)
    at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["contact", "topic"], name="one_state_per_topic"),
        ]

    def __str__(self) -> str:
        return f"{self.topic}: {self.state}"

"""People, the topics they may hear about, and what they said about it."""

from datetime import datetime, timedelta
from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from contacts.states import ConsentState, Purpose, TopicPolicy


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
    locale = models.CharField(
        max_length=20,
        blank=True,
        help_text=_("The language of their pages, e.g. de or pt-BR; empty: their browser's."),
    )
    may_track = models.BooleanField(
        default=False,
        editable=False,
        help_text=_("Whether they agreed that opens and clicks are recorded; see the ledger."),
    )
    objected_at = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text=_("Since then they want no marketing mail, at whatever address; see the ledger."),
    )
    do_not_share = models.BooleanField(
        default=False,
        help_text=_("Nothing about them goes to third parties: no outgoing webhook, no export."),
    )
    paused_until = models.DateTimeField(
        null=True, blank=True, help_text=_("No marketing mail until then, at their own wish.")
    )
    weekly_limit = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        help_text=_("The most marketing mails in seven days, at their own wish; empty: no limit."),
    )
    engaged_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text=_("When they last opened or clicked.")
    )
    erased_at = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text=_("Since then nothing is known of them but that they were here."),
    )
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())

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
    double_opt_in = models.BooleanField(
        default=False,
        help_text=_("Who subscribes is asked by mail first, and counts once they have confirmed."),
    )

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]

    def __str__(self) -> str:
        return self.name


class Consent(models.Model):
    """One line of the consent ledger: who said what about what, when and how we know.

    Append-only: `contacts.ledger` writes it, nothing changes it.
    """

    contact = models.ForeignKey(Contact, on_delete=models.CASCADE, related_name="consents")
    purpose = models.CharField(max_length=10, choices=Purpose.choices, default=Purpose.MAIL)
    topic = models.ForeignKey(
        Topic, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    state = models.CharField(max_length=10, choices=ConsentState.choices)
    source = models.CharField(max_length=100)
    evidence = models.TextField(blank=True)
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(
                condition=Q(purpose=Purpose.MAIL, topic__isnull=False)
                | (~Q(purpose=Purpose.MAIL) & Q(topic__isnull=True)),
                name="consent_to_mail_names_its_topic",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.topic or self.get_purpose_display()}: {self.state}"


class Erasure(models.Model):
    """Somebody asked to be forgotten: mail has stopped, and the rest is being erased or is gone.

    By `user_id` and `addresses` the rest is found; once it is gone they are empty and this names
    nobody. `marks` says how far each sweep through a table has come.
    """

    ANSWER_DAYS = 30
    """Within which it has to be done (GDPR 12(3) says a month)."""

    contact = models.OneToOneField(Contact, on_delete=models.CASCADE, related_name="erasure")
    source = models.CharField(max_length=100)
    reason = models.CharField(max_length=300, blank=True)
    user_id = models.CharField(max_length=200, blank=True)
    addresses = ArrayField(models.CharField(max_length=254), default=list)
    marks = models.JSONField(default=dict)
    tries = models.PositiveIntegerField(default=0)
    tried_at = models.DateTimeField(null=True, blank=True)
    next_at = models.DateTimeField(db_default=Now(), null=True, blank=True)
    last_error = models.CharField(max_length=200, blank=True)
    requested_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["next_at", "id"],
                name="erasure_open",
                condition=Q(finished_at__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return f"erasure of contact {self.contact_id}"

    @property
    def due_at(self) -> datetime:
        """Until when the person may expect it to be done."""
        return self.requested_at + timedelta(days=self.ANSWER_DAYS)


class PersonalCopy(models.Model):
    """The copy of what we hold of a person, which they or somebody for them asked for: made by a
    worker, kept for some days, then empty.
    """

    contact = models.OneToOneField(Contact, on_delete=models.CASCADE, related_name="copy")
    source = models.CharField(max_length=100)
    requested_at = models.DateTimeField(db_default=Now())
    tries = models.PositiveIntegerField(default=0)
    next_at = models.DateTimeField(db_default=Now())
    last_error = models.CharField(max_length=200, blank=True)
    built_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    body = models.BinaryField(default=bytes, help_text=_("JSON."))

    class Meta:
        verbose_name_plural = "personal copies"
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["next_at", "id"], name="copy_open", condition=Q(built_at__isnull=True)
            ),
        ]

    def __str__(self) -> str:
        return f"copy for contact {self.contact_id}"


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

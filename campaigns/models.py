"""Campaigns: what marketers edit (draft rows), what is published (revisions), who is inside."""

from typing import ClassVar, Self

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from campaigns.states import (
    CampaignState,
    DelayUnit,
    EnrollmentState,
    ExitReason,
    StepKind,
)
from common.ids import uuid7
from contacts.models import Contact, Topic
from content.models import Template
from delivery.models import Message, Sender
from delivery.states import Stream
from events.models import EventType


class Campaign(models.Model):
    """A trigger, an audience and ordered steps. Rules and steps are draft rows until Publish
    writes them down as a `Revision`; the engine reads the published revision only."""

    key = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=100)
    description = models.TextField(blank=True)
    stream = models.CharField(max_length=20, choices=Stream.choices, default=Stream.MARKETING)
    topic = models.ForeignKey(
        Topic,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text=_("Marketing mail needs one: it is what people consent to and unsubscribe from."),
    )
    sender = models.ForeignKey(
        Sender,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text=_("Empty: the default sender."),
    )
    state = models.CharField(
        max_length=10, choices=CampaignState.choices, default=CampaignState.DRAFT, editable=False
    )
    published = models.ForeignKey(
        "Revision",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        editable=False,
        related_name="+",
    )
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]

    def __str__(self) -> str:
        return self.name


class Rule(models.Model):
    """An event type that starts the campaign, and the condition under which it does."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="rules")
    event_type = models.ForeignKey(EventType, on_delete=models.PROTECT, related_name="+")
    condition = models.JSONField(
        default=dict, blank=True, help_text=_("Empty: every event of this type.")
    )
    entry_key_path = models.CharField(
        max_length=200,
        blank=True,
        verbose_name=_("once per"),
        help_text=_(
            "Path whose value a person enters with only once, e.g. payload.cart_id. "
            "Empty: every event counts."
        ),
    )

    class Meta:
        ordering: ClassVar[list[str]] = ["id"]

    def __str__(self) -> str:
        return f"on {self.event_type}"


class Step(models.Model):
    """One thing that happens to a person in the campaign, in order of `position`."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="steps")
    position = models.PositiveSmallIntegerField(default=1)
    key = models.SlugField(
        max_length=60, help_text=_("Stays the same when the step is edited or moved.")
    )
    kind = models.CharField(max_length=20, choices=StepKind.choices, default=StepKind.SEND_EMAIL)
    template = models.ForeignKey(
        Template, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    wait_amount = models.PositiveIntegerField(
        null=True, blank=True, help_text=_("How long to wait, for an event: at the most.")
    )
    wait_unit = models.CharField(max_length=10, choices=DelayUnit.choices, default=DelayUnit.HOURS)
    event_type = models.ForeignKey(
        EventType, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    match_path = models.CharField(
        max_length=200,
        blank=True,
        help_text=_("Path that must be equal in the awaited and the entry event."),
    )
    on_event = models.CharField(
        max_length=60,
        blank=True,
        verbose_name=_("if it arrives"),
        help_text=_("Key of a later step, or exit. Empty: the next step."),
    )
    on_timeout = models.CharField(
        max_length=60,
        blank=True,
        verbose_name=_("if it does not"),
        help_text=_("Key of a later step, or exit. Empty: the next step."),
    )

    class Meta:
        ordering: ClassVar[list[str]] = ["position", "id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["campaign", "key"], name="step_key_once"),
        ]

    def __str__(self) -> str:
        return self.key


class Revision(models.Model):
    """A campaign as it was published. Immutable; `snapshot` is read through `plan.Plan`."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="revisions")
    number = models.PositiveIntegerField()
    snapshot = models.JSONField()
    trigger_types = ArrayField(models.CharField(max_length=200))
    published_at = models.DateTimeField(db_default=Now())
    published_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+"
    )

    class Meta:
        ordering: ClassVar[list[str]] = ["-number"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["campaign", "number"], name="revision_number_once"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            GinIndex(fields=["trigger_types"], name="revision_triggers"),
        ]

    def __str__(self) -> str:
        return f"{self.campaign} #{self.number}"


class EnrollmentQuerySet(models.QuerySet["Enrollment"]):
    """Row-level rules of enrollments."""

    def due(self) -> Self:
        """Waiting, and the time is up by the database's clock."""
        return self.filter(state=EnrollmentState.WAITING, wake_at__lte=Now())


class Enrollment(models.Model):
    """One person's way through a campaign.

    `entry_key` is the event id, or the value at the rule's "once per" path: the unique constraint
    is what makes a second enrollment impossible. `wake_at` stays until the commit that moves it.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    campaign = models.ForeignKey(
        Campaign, on_delete=models.PROTECT, related_name="enrollments", db_index=False
    )
    contact = models.ForeignKey(Contact, on_delete=models.CASCADE, related_name="enrollments")
    entry_key = models.CharField(max_length=310)
    event_id = models.CharField(max_length=200)
    event_at = models.DateTimeField()
    context = models.JSONField(default=dict)
    revision = models.ForeignKey(
        Revision, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    state = models.CharField(
        max_length=10, choices=EnrollmentState.choices, default=EnrollmentState.WAITING
    )
    exit_reason = models.CharField(max_length=20, choices=ExitReason.choices, blank=True)
    step_key = models.CharField(max_length=60, blank=True)
    seq = models.PositiveSmallIntegerField(default=0)
    wake_at = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(db_default=Now())

    objects = EnrollmentQuerySet.as_manager()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["campaign", "contact", "entry_key"], name="enrolled_once_per_key"
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["wake_at", "id"], name="enrollment_due", condition=Q(state="waiting")
            ),
        ]

    def __str__(self) -> str:
        return str(self.pk)


class StepRun(models.Model):
    """A step that was executed for an enrollment; the constraint makes it once."""

    enrollment = models.ForeignKey(
        Enrollment, on_delete=models.CASCADE, related_name="step_runs", db_index=False
    )
    seq = models.PositiveSmallIntegerField()
    step_key = models.CharField(max_length=60)
    kind = models.CharField(max_length=20, choices=StepKind.choices)
    outcome = models.CharField(max_length=30, blank=True)
    message = models.ForeignKey(
        Message, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering: ClassVar[list[str]] = ["seq"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["enrollment", "seq"], name="step_run_once"),
        ]

    def __str__(self) -> str:
        return f"{self.seq}. {self.step_key}"


class Wait(models.Model):
    """An enrollment that waits for an event; gone when it arrived or the time is over."""

    enrollment = models.OneToOneField(Enrollment, on_delete=models.CASCADE, related_name="wait")
    contact = models.ForeignKey(Contact, on_delete=models.CASCADE, related_name="+", db_index=False)
    event_type = models.CharField(max_length=200)
    match_path = models.CharField(max_length=200, blank=True)
    match_value = models.CharField(max_length=200, blank=True)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["contact", "event_type"], name="wait_of_contact"),
        ]

    def __str__(self) -> str:
        return f"waits for {self.event_type}"

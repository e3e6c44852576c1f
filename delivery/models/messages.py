"""Messages, what was tried with them, and the sandbox they may end in."""

from typing import ClassVar, Self

from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import Q
from django.db.models.functions import Coalesce, Now
from django.utils.translation import gettext_lazy as _

from common.ids import uuid7
from contacts.models import Contact, Topic
from content.models import TemplateVersion
from delivery.models.providers import Provider, Sender
from delivery.states import DUE_STATES, STOP_REASONS, MessageState, Reason, Stream


class MessageQuerySet(models.QuerySet["Message"]):
    """Row-level rules of messages."""

    def due(self, stream: Stream) -> Self:
        """Waiting to be claimed on this stream, by the database's clock."""
        return self.filter(state__in=DUE_STATES, stream=stream, due_at__lte=Now())


class Message(models.Model):
    """One mail to one person, at most once.

    `dedupe_key` says which mail it is and is unique; `origin_*` say where it came from, as text,
    because campaigns stand above. `attempts` counts hand-overs and fences them: a worker whose
    lease was taken over holds an old number and changes nothing. `failures` counts the attempts
    that were the message's own fault, `crashes` the workers that died before handing it over.

    On its way out a row is written four times, and each time every index is. So what nobody looks
    messages up by has none: topic, template, sender and provider are few, and only a deletion that
    is refused anyway asks for theirs.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    dedupe_key = models.CharField(max_length=100)
    contact = models.ForeignKey(Contact, on_delete=models.PROTECT, related_name="messages")
    email = models.CharField(max_length=254, blank=True)
    email_normalized = models.CharField(max_length=254, blank=True)
    stream = models.CharField(max_length=20, choices=Stream.choices)
    topic = models.ForeignKey(
        Topic,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        db_index=False,
    )
    template_version = models.ForeignKey(
        TemplateVersion, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    sender = models.ForeignKey(
        Sender,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        db_index=False,
    )
    context = models.JSONField(default=dict)

    origin_event_id = models.CharField(max_length=200, blank=True)
    origin_campaign = models.CharField(max_length=100, blank=True)
    origin_step = models.CharField(max_length=60, blank=True)
    origin_enrollment = models.CharField(max_length=40, blank=True)
    depth = models.PositiveSmallIntegerField(
        default=0, help_text=_("How many mails stand between it and what a service posted.")
    )

    state = models.CharField(
        max_length=12, choices=MessageState.choices, default=MessageState.QUEUED
    )
    reason = models.CharField(max_length=30, choices=Reason.choices, blank=True)
    detail = models.CharField(max_length=500, blank=True)
    due_at = models.DateTimeField(db_default=Now())
    attempts = models.PositiveSmallIntegerField(default=0)
    failures = models.PositiveSmallIntegerField(default=0)
    crashes = models.PositiveSmallIntegerField(default=0)
    lease_owner = models.CharField(max_length=80, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    handed_over_at = models.DateTimeField(null=True, blank=True)
    handover_id = models.UUIDField(
        null=True, blank=True, help_text=_("The batch it was handed over in; names its journal.")
    )
    provider = models.ForeignKey(
        Provider,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        db_index=False,
    )
    route = models.CharField(
        max_length=100, blank=True, help_text=_("The backend it was handed over through.")
    )
    sending_domain = models.CharField(max_length=253, blank=True)
    mailboxes = models.CharField(
        max_length=20, blank=True, help_text=_("The mailbox provider of the address.")
    )
    esp_id = models.CharField(max_length=200, blank=True)
    wire_hash = models.BinaryField(
        null=True, help_text=_("SHA-256 of the mail that was handed over last.")
    )
    is_tracked = models.BooleanField(
        default=False, help_text=_("Whether what was handed over last tells opens and clicks.")
    )
    replay_until = models.DateTimeField(
        null=True,
        blank=True,
        help_text=_("Until then the same provider answers a repeated call with the first result."),
    )

    created_at = models.DateTimeField(db_default=Now())
    sent_at = models.DateTimeField(null=True, blank=True)
    delivered_at = models.DateTimeField(null=True, blank=True)
    opened_at = models.DateTimeField(null=True, blank=True)
    clicked_at = models.DateTimeField(null=True, blank=True)
    rejected_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text=_("The provider took it, looked at it and did not send it."),
    )
    bounced_at = models.DateTimeField(null=True, blank=True)
    complained_at = models.DateTimeField(null=True, blank=True)
    unsubscribed_at = models.DateTimeField(null=True, blank=True)

    objects = MessageQuerySet.as_manager()

    is_too_late = False
    """Told by the claim: the time of `replay_until` is over."""

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["dedupe_key"], name="message_once"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["stream", "due_at", "id"],
                name="message_due",
                condition=Q(state__in=["queued", "retry"]),
            ),
            # So few that a claim of theirs must not look through the whole queue.
            models.Index(
                fields=["stream", "due_at", "id"],
                name="message_crashed",
                condition=Q(state__in=["queued", "retry"], crashes__gt=0),
            ),
            models.Index(
                fields=["stream", "reason", "due_at"],
                name="message_waiting",
                condition=Q(state="held"),
            ),
            models.Index(
                *("origin_campaign", "stream", "mailboxes", Coalesce("sender_id", 0)),
                name="message_stopped",
                condition=Q(state="held", reason__in=STOP_REASONS),
            ),
            models.Index(
                fields=["lease_until"],
                name="message_leased",
                condition=Q(state__in=["claimed", "dispatching"]),
            ),
            models.Index(
                fields=["state", "-id"],
                name="message_attention",
                condition=Q(state__in=["held", "unknown", "failed", "dead"]),
            ),
            models.Index(fields=["email_normalized"], name="message_by_email"),
            models.Index(fields=["origin_event_id"], name="message_by_event"),
            BrinIndex(fields=["sent_at"], name="message_sent"),
            models.Index(
                fields=["sent_at"],
                name="message_disliked",
                condition=Q(complained_at__isnull=False) | Q(unsubscribed_at__isnull=False),
            ),
            models.Index(fields=["origin_campaign", "-id"], name="message_by_campaign"),
            models.Index(
                fields=["provider", "esp_id"], name="message_by_esp_id", condition=~Q(esp_id="")
            ),
        ]

    def __str__(self) -> str:
        return str(self.pk)


class DeadLetter(Message):
    """A message whose delivery failed for good, as a list of its own in the admin."""

    class Meta:
        proxy = True


class Attempt(models.Model):
    """One hand-over of one message and what the provider said to it."""

    message = models.ForeignKey(
        Message, on_delete=models.CASCADE, related_name="attempt_log", db_index=False
    )
    number = models.PositiveSmallIntegerField()
    provider = models.ForeignKey(
        Provider, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    verdict = models.CharField(max_length=12)
    detail = models.CharField(max_length=500, blank=True)
    request = models.CharField(
        max_length=300, blank=True, help_text=_("What was asked of it, where it did not take it.")
    )
    address_hash = models.BinaryField(
        max_length=32, null=True, help_text=_("Stands for the address it was handed over to.")
    )
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["message", "number"], name="attempt_number_once"),
        ]

    def __str__(self) -> str:
        return f"attempt {self.number}: {self.verdict}"


class SandboxMail(models.Model):
    """A mail in the sandbox inbox, byte for byte as a server would have got it.

    Nothing here is unique on purpose: were a message handed over twice, it would lie here twice.
    """

    message = models.ForeignKey(
        Message,
        on_delete=models.CASCADE,
        null=True,
        db_constraint=False,
        related_name="sandbox_mails",
    )
    from_email = models.CharField(max_length=320)
    to_email = models.CharField(max_length=320)
    subject = models.CharField(max_length=1000, blank=True)
    raw = models.BinaryField()
    received_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        verbose_name = "sandbox mail"
        verbose_name_plural = "sandbox inbox"

    def __str__(self) -> str:
        return self.subject or f"mail {self.pk}"

"""The inbox: what services posted, kept before anything is done with it."""

import hashlib
import secrets
from datetime import datetime
from typing import ClassVar, Self

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from events.states import EventState, IgnoredReason

DEFAULT_SOURCE = "api"


def default_user_id_paths() -> list[str]:
    return ["user_id"]


def default_email_paths() -> list[str]:
    return ["payload.email", "payload.user.email"]


def default_profile_paths() -> dict[str, list[str]]:
    return {"name": ["payload.name", "payload.user.name"]}


class EventType(models.Model):
    """A kind of event and where its person stands in it. Types need no registration to be
    accepted; a registered one can be chosen in rules and carry paths of its own."""

    name = models.CharField(max_length=200, unique=True)
    description = models.CharField(max_length=300, blank=True)
    user_id_paths = ArrayField(
        models.CharField(max_length=200), default=default_user_id_paths, blank=True
    )
    email_paths = ArrayField(
        models.CharField(max_length=200), default=default_email_paths, blank=True
    )
    profile_paths = models.JSONField(
        default=default_profile_paths,
        blank=True,
        help_text=_("Contact attribute → paths in the event; the first one found is stored."),
    )

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]

    def __str__(self) -> str:
        return self.name


class EventQuerySet(models.QuerySet["Event"]):
    """Row-level rules of the inbox."""

    def due(self) -> Self:
        """Pending, not leased by a living worker, not waiting for a later attempt."""
        return self.filter(
            Q(claimed_until__isnull=True) | Q(claimed_until__lt=Now()),
            state=EventState.PENDING,
            due_at__lte=Now(),
        )


class Event(models.Model):
    """One event, exactly as it was posted.

    `source` is the namespace of `event_id`: the API key's, so that two producers cannot collide.
    `contact_id` is filled in by the engine; it is a bare number because contacts stand above.
    """

    source = models.CharField(max_length=100, default=DEFAULT_SOURCE)
    event_id = models.CharField(max_length=200)
    type = models.CharField(max_length=200)
    user_id = models.CharField(max_length=200, blank=True)
    occurred_at = models.DateTimeField()
    received_at = models.DateTimeField(db_default=Now())
    payload = models.JSONField(default=dict)
    metadata = models.JSONField(default=dict)
    body_hash = models.BinaryField(max_length=32)

    state = models.CharField(max_length=10, choices=EventState.choices, default=EventState.PENDING)
    reason = models.CharField(max_length=30, choices=IgnoredReason.choices, blank=True)
    outcome = models.JSONField(
        default=list, help_text=_("What each listening campaign made of the event.")
    )
    contact_id = models.BigIntegerField(null=True, blank=True)
    processed_at = models.DateTimeField(null=True, blank=True)

    due_at = models.DateTimeField(db_default=Now())
    attempts = models.PositiveSmallIntegerField(default=0)
    claimed_until = models.DateTimeField(null=True, blank=True)
    lease_owner = models.CharField(max_length=80, blank=True)
    error = models.TextField(blank=True)

    objects = EventQuerySet.as_manager()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["source", "event_id"], name="event_once_per_source"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["due_at", "id"], name="event_due", condition=Q(state="pending")),
            models.Index(fields=["id"], name="event_dead", condition=Q(state="dead")),
            models.Index(
                fields=["contact_id", "type", "occurred_at"],
                name="event_of_contact",
                condition=Q(contact_id__isnull=False),
            ),
            models.Index(fields=["type", "-id"], name="event_newest_of_type"),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.event_id}"


class Scope(models.TextChoices):
    """What an API key may do."""

    EVENTS_WRITE = "events:write", _("Post events")
    MESSAGES_READ = "messages:read", _("Read messages")


def default_scopes() -> list[str]:
    return [Scope.EVENTS_WRITE.value]


class ApiKey(models.Model):
    """A producer's key: found by its public prefix, proven by a hash, shown once.

    A plain SHA-256 is enough for a secret of more than 200 random bits (ASVS 6.5.2); a slow hash
    would cost more than the request it guards.
    """

    PREFIX = "emauto_live_"

    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=8, unique=True, editable=False)
    secret_hash = models.BinaryField(max_length=32, editable=False)
    source = models.CharField(
        max_length=100,
        default=DEFAULT_SOURCE,
        help_text=_("Namespace of the event ids posted with this key."),
    )
    scopes = ArrayField(
        models.CharField(max_length=30, choices=Scope.choices), default=default_scopes
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.name} ({self.PREFIX}{self.prefix}_…)"

    @classmethod
    def new_token(cls) -> str:
        """A fresh token `emauto_live_<8 public>_<40 secret>`; store only what `set_token` keeps."""
        alphabet = "abcdefghijkmnpqrstuvwxyz23456789"
        public = "".join(secrets.choice(alphabet) for _ in range(8))
        secret = "".join(secrets.choice(alphabet) for _ in range(40))
        return f"{cls.PREFIX}{public}_{secret}"

    @classmethod
    def split_token(cls, token: str) -> tuple[str, bytes] | None:
        """The public prefix and the hash of the secret, or None when it is no key of ours."""
        if not token.startswith(cls.PREFIX):
            return None
        public, separator, secret = token.removeprefix(cls.PREFIX).partition("_")
        if not separator or len(public) != 8 or len(secret) < 32:
            return None
        return public, hashlib.sha256(secret.encode()).digest()

    def set_token(self, token: str) -> None:
        """Keep the prefix and the hash of `token`; raises `ValueError` when it is malformed."""
        parts = self.split_token(token)
        if parts is None:
            raise ValueError(f"not of the form {self.PREFIX}<8 characters>_<32 or more>")
        self.prefix, self.secret_hash = parts

    def is_valid_at(self, moment: datetime) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > moment)

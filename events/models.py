"""The inbox: what services posted, kept before anything is done with it."""

import hashlib
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Self

from django.contrib.postgres.fields import ArrayField
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from events.states import EventState, IgnoredReason, RefusalCode, RejectionState

DEFAULT_SOURCE = "api"
OWN_SOURCE = "emailauto:mail"
"""The source of the events about our own mail. No API key's can hold a colon."""
IDENTIFY = "identify"
"""The type of Segment's call that says who somebody is."""


def default_user_id_paths() -> list[str]:
    return ["user_id"]


def default_email_paths() -> list[str]:
    return ["payload.email", "payload.user.email", "metadata.context.traits.email"]


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
    schema = models.JSONField(
        default=dict,
        blank=True,
        help_text=_("JSON Schema 2020-12 of the payload. Empty: any object is accepted."),
    )
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]

    def __str__(self) -> str:
        return self.name


_PERSON = EventType()
_IDENTIFY = EventType(profile_paths={"name": ["payload.name"], "*": ["payload"]})
_THING = EventType(profile_paths={"name": ["payload.user.name", "metadata.context.traits.name"]})


def unregistered_type(name: str, payload: Mapping[str, Any]) -> EventType:
    """Where the person stands in an event of a type that nobody registered.

    An `identify` call is all about the person. Elsewhere a bare `payload.name` is the person's
    only beside an address: in "Product Added" it is the product's, and nobody wants to be
    greeted by it.
    """
    if name == IDENTIFY:
        return _IDENTIFY
    return _PERSON if "email" in payload else _THING


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
    stated_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text=_("What the producer's clock said, where it was corrected or not believed."),
    )
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
    note = models.CharField(max_length=300, blank=True, help_text=_("Why it was discarded."))

    objects = EventQuerySet.as_manager()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["source", "event_id"], name="event_once_per_source"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["due_at", "id"], name="event_due", condition=Q(state="pending")),
            # So few that a claim of theirs must not look through the whole inbox.
            models.Index(
                fields=["due_at", "id"],
                name="event_retried",
                condition=Q(state="pending", attempts__gt=0),
            ),
            models.Index(fields=["id"], name="event_dead", condition=Q(state="dead")),
            models.Index(
                fields=["contact_id", "type", "occurred_at"],
                name="event_of_contact",
                condition=Q(contact_id__isnull=False),
            ),
            models.Index(fields=["type", "-id"], name="event_newest_of_type"),
            models.Index(
                fields=["id"], name="event_erased", condition=Q(event_id__startswith="erased:")
            ),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.event_id}"

    @property
    def depth(self) -> int:
        """How many mails of ours stand between it and what a service posted."""
        return int(self.metadata.get("depth", 0)) if self.source == OWN_SOURCE else 0


class Scope(models.TextChoices):
    """What an API key may do."""

    EVENTS_WRITE = "events:write", _("Post events")
    MESSAGES_READ = "messages:read", _("Read messages")
    METRICS_READ = "metrics:read", _("Read metrics")
    CONTACTS_WRITE = "contacts:write", _("Subscribe people")


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
        max_length=60,
        default=DEFAULT_SOURCE,
        # Without a slash, so that `<source>/<CloudEvents source>` is nobody else's namespace.
        validators=[RegexValidator(r"^[A-Za-z0-9._-]+$", _("Letters, digits, dot, dash, _"))],
        help_text=_("Namespace of the event ids posted with this key."),
    )
    rate_limit = models.PositiveIntegerField(
        default=1000,
        help_text=_("Events per second, over all servers. 0: no limit."),
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
        if not separator or len(public) != 8 or len(secret) < 32 or not token.isprintable():
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


class SeenType(models.Model):
    """A type that was posted without being registered, per source. A source may make up only so
    many of them, so that a producer that puts ids into names is noticed."""

    source = models.CharField(max_length=100)
    name = models.CharField(max_length=200)
    first_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["source", "name"], name="seen_type_once_per_source"),
        ]

    def __str__(self) -> str:
        return self.name


class Rejection(models.Model):
    """An event that was not let in, once per event and reason, however often it was posted.

    `body` is there only where the producer will not send it again; never for `residency`, whose
    content must not be held here.
    """

    source = models.CharField(max_length=100)
    event_id = models.CharField(max_length=200, blank=True)
    type = models.CharField(max_length=200, blank=True)
    code = models.CharField(max_length=20, choices=RefusalCode.choices)
    problems = models.JSONField(default=list)
    body = models.JSONField(null=True, blank=True)
    times = models.PositiveIntegerField(default=1)
    first_at = models.DateTimeField(db_default=Now())
    last_at = models.DateTimeField(db_default=Now())
    state = models.CharField(
        max_length=10, choices=RejectionState.choices, default=RejectionState.OPEN
    )
    note = models.CharField(max_length=300, blank=True)

    class Meta:
        verbose_name = "refused event"
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["source", "event_id", "code"], name="rejection_once_per_reason"
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["code", "-id"], name="rejection_of_code"),
            models.Index(fields=["state", "-id"], name="rejection_in_state"),
        ]

    def __str__(self) -> str:
        return f"{self.code} {self.event_id}"


class IdempotentReply(models.Model):
    """The answer to a whole request, for 24 hours, under the producer's `Idempotency-Key`."""

    source = models.CharField(max_length=100)
    key = models.CharField(max_length=255)
    body_hash = models.BinaryField(max_length=32)
    status = models.PositiveSmallIntegerField()
    body = models.BinaryField()
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["source", "key"], name="reply_once_per_key"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["created_at"], name="reply_age"),
        ]

    def __str__(self) -> str:
        return self.key


class Consumer(models.Model):
    """How far one partition or queue of a broker has been read; written by `manage.py consume`
    every few seconds."""

    broker = models.CharField(max_length=20)
    queue = models.CharField(max_length=200)
    partition = models.IntegerField(default=0)
    lag = models.BigIntegerField(
        null=True, help_text=_("Messages that wait there; empty when the broker does not say.")
    )
    recorded = models.BigIntegerField(default=0)
    dead_lettered = models.BigIntegerField(default=0)
    seen_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["broker", "queue", "partition"], name="consumer_once_per_partition"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.broker} {self.queue}/{self.partition}"

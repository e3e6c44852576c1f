"""The states of an event in the inbox, why one was ignored, and why one was not let in."""

from django.db import models


class EventState(models.TextChoices):
    """`pending` until the engine has seen it; every other state is final."""

    PENDING = "pending"
    PROCESSED = "processed"
    IGNORED = "ignored"
    DEAD = "dead"


class IgnoredReason(models.TextChoices):
    """Why an event started nothing."""

    NO_CAMPAIGN = "no_campaign", "No campaign listens to this event type"
    NOT_MATCHED = "not_matched", "No campaign's rule matched"
    CAMPAIGN_PAUSED = "campaign_paused", "Every matching campaign is paused"
    ALREADY_ENROLLED = "already_enrolled", "The person is or was in the campaign with this key"
    NO_PERSON = "no_person", "Neither a user id nor a valid e-mail address in the event"
    LATE = "late", "It came too late to start anything; the person was updated"
    LOOP = "loop", "A mail about a mail about a mail: it would never end"
    DISCARDED = "discarded", "Somebody discarded it"


class RefusalCode(models.TextChoices):
    """Why an event was not taken into the inbox; the API's `code`."""

    INVALID = "invalid", "Its shape is wrong"
    CONFLICT = "conflict", "Its id is known with another body"
    SCHEMA = "schema", "It does not fit the schema of its type"
    UNREGISTERED = "unregistered", "Its type is not registered"
    TOO_MANY_TYPES = "too_many_types", "Its producer has made up too many types"
    RESIDENCY = "residency", "It may not be held in this region"

    @property
    def is_kept(self) -> bool:
        """Whether such an event is remembered although its producer was told."""
        return self not in (RefusalCode.INVALID, RefusalCode.CONFLICT)


class RejectionState(models.TextChoices):
    """What became of a refused event; `open` until somebody decides."""

    OPEN = "open"
    REPLAYED = "replayed"
    DISCARDED = "discarded"

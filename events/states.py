"""The states of an event in the inbox, and why one was ignored."""

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

"""The vocabulary of campaigns: their states, their steps, and how an enrollment ends."""

from django.db import models


class CampaignState(models.TextChoices):
    """Draft until first published; paused lets nobody in and holds its mails; stopped is final."""

    DRAFT = "draft"
    LIVE = "live"
    PAUSED = "paused"
    STOPPED = "stopped"


class StepKind(models.TextChoices):
    """What a step does."""

    SEND_EMAIL = "send_email", "Send an e-mail"
    DELAY = "delay", "Wait for a while"
    WAIT_FOR_EVENT = "wait_for_event", "Wait for an event"
    EXIT = "exit", "Leave the campaign"


class DelayUnit(models.TextChoices):
    """Units a marketer thinks in."""

    SECONDS = "seconds"
    MINUTES = "minutes"
    HOURS = "hours"
    DAYS = "days"


SECONDS_PER: dict[str, int] = {"seconds": 1, "minutes": 60, "hours": 3_600, "days": 86_400}


class EnrollmentState(models.TextChoices):
    """`waiting` has a `wake_at`; every other state is final, except `parked`, which a replay
    continues."""

    WAITING = "waiting"
    FINISHED = "finished"
    EXITED = "exited"
    PARKED = "parked"


class ExitReason(models.TextChoices):
    """Why somebody left before the last step."""

    STEP = "step", "A step said so"
    STOPPED = "stopped", "The campaign was stopped"


EXIT = "exit"
"""A step's target that means: leave the campaign."""

"""What a consent may be about, the states of a topic's policy and of a subscription to it."""

from django.db import models


class TopicPolicy(models.TextChoices):
    """What must be on record before the topic may be mailed."""

    OPT_IN = "opt_in", "Only people who agreed"
    OPT_OUT = "opt_out", "Existing customers, until they object (soft opt-in)"


class Purpose(models.TextChoices):
    """What a consent is about. To be mailed and to be watched are two questions (ePrivacy 5(3)),
    and an objection to marketing is one to all of it, whatever the topic (GDPR 21(2))."""

    MAIL = "mail", "Mail about a topic"
    MARKETING = "marketing", "Any marketing mail"
    TRACKING = "tracking", "Recording opens and clicks"


class ConsentState(models.TextChoices):
    """What a person last said about a topic."""

    GRANTED = "granted"
    WITHDRAWN = "withdrawn"
    PENDING = "pending"
    """Somebody asked in their name, and they have not confirmed it: never as good as granted."""

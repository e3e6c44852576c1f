"""The states of a topic's policy and of a person's subscription to it."""

from django.db import models


class TopicPolicy(models.TextChoices):
    """What must be on record before the topic may be mailed."""

    OPT_IN = "opt_in", "Only people who agreed"
    OPT_OUT = "opt_out", "Existing customers, until they object (soft opt-in)"


class ConsentState(models.TextChoices):
    """What a person last said about a topic."""

    GRANTED = "granted"
    WITHDRAWN = "withdrawn"

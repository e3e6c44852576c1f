"""The vocabulary of delivery: a message's states, and every reason for not sending it."""

from django.db import models


class Stream(models.TextChoices):
    """Transactional mail answers something the person did; the rest is marketing."""

    TRANSACTIONAL = "transactional"
    MARKETING = "marketing"


class MessageState(models.TextChoices):
    """See docs/architecture.md for the machine. Delivered, opened, bounced are timestamps."""

    QUEUED = "queued"
    CLAIMED = "claimed"
    DISPATCHING = "dispatching"
    SENT = "sent"
    RETRY = "retry"
    UNKNOWN = "unknown"
    FAILED = "failed"
    DEAD = "dead"
    SKIPPED = "skipped"
    HELD = "held"


class Actor(models.TextChoices):
    """Who opened or clicked. See docs/tracking.md for how that is told."""

    PERSON = "person"
    PROXY = "proxy", "Proxy"
    """A mail service that loads images for people, or in place of them."""
    MACHINE = "machine", "Machine"
    """A security scanner, a preview, a script."""


class Reason(models.TextChoices):
    """Why a message was not sent, or not yet. Stored on it and shown to the marketer."""

    NO_ADDRESS = "no_address", "The contact has no e-mail address"
    NEEDS_SMTPUTF8 = "needs_smtputf8", "The address needs SMTPUTF8, which no provider here offers"
    CONTACT_INACTIVE = "contact_inactive", "The contact is inactive or was erased"
    SUPPRESSED = "suppressed", "The address is suppressed"
    NO_TOPIC = "no_topic", "Marketing mail without a topic nobody can consent to"
    CONSENT_MISSING = "consent_missing", "No consent to this topic is on record"
    CONSENT_WITHDRAWN = "consent_withdrawn", "Consent to this topic was withdrawn"
    CONSENT_PENDING = "consent_pending", "Consent to this topic was not confirmed yet"
    OBJECTED = "objected", "The person wants no marketing mail at all"
    PAUSED = "paused", "The person paused all marketing mail"
    WEEKLY_LIMIT = "weekly_limit", "The person has had as many mails this week as they want"
    CAMPAIGN_PAUSED = "campaign_paused", "The campaign is paused"
    CAMPAIGN_STOPPED = "campaign_stopped", "The campaign was stopped"
    REPUTATION = "reputation", "Too much of it came back or was called spam"
    SLOWED = "slowed", "Only so many of it may leave in an hour"
    KILL_SWITCH = "kill_switch", "Sending is switched off"
    NO_SENDER = "no_sender", "No sender is set up"
    NO_PROVIDER = "no_provider", "No active provider for this mail"
    NO_REGION = "no_region", "No provider may be given this person's data"
    PROVIDER_DOWN = "provider_down", "The provider is down or asked for a pause"
    SENDER_REFUSED = "sender_refused", "The provider does not accept the sending domain"
    CAP_REACHED = "cap_reached", "A limit per hour or day is used up"
    WARMING_UP = "warming_up", "The sending domain is being warmed up"
    GATE_FAILED = "gate_failed", "A check failed, so nothing was sent"
    RENDER_FAILED = "render_failed", "The template could not be rendered"
    CRASHED = "crashed", "Workers died again and again on this message"
    REFUSED = "refused", "The provider refused the message"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted", "The provider did not take it in any attempt"
    OUTCOME_UNKNOWN = "outcome_unknown", "It is not known whether the provider took it"
    DISCARDED = "discarded", "Discarded by hand"


DUE_STATES = (MessageState.QUEUED, MessageState.RETRY)
DEAD_LETTER_STATES = (MessageState.FAILED, MessageState.DEAD)
WAITING_REASONS = (
    Reason.CAP_REACHED,
    Reason.WARMING_UP,
    Reason.SLOWED,
    Reason.NO_SENDER,
    Reason.NO_PROVIDER,
    Reason.NO_REGION,
    Reason.SENDER_REFUSED,
)
"""Held until a moment, and then due again by itself."""
STOP_REASONS = (Reason.KILL_SWITCH, Reason.CAMPAIGN_PAUSED, Reason.REPUTATION)
"""Held by a switch, until it is lifted."""

"""Why an address is suppressed, and how far that reaches."""

from django.db import models


class SuppressionReason(models.TextChoices):
    """Ranked in `RANK`: a weaker reason never replaces a stronger one. The last is the only one
    that passes by itself, so it replaces none that stays."""

    COMPLAINT = "complaint", "Spam complaint"
    ERASURE = "erasure", "Erasure or objection"
    UNSUBSCRIBE = "unsubscribe", "Unsubscribed"
    HARD_BOUNCE = "hard_bounce", "Hard bounce"
    MANUAL = "manual", "Added by hand"
    SOFT_LIMIT = "soft_limit", "Nothing arrived for weeks"


RANK: dict[str, int] = {reason.value: rank for rank, reason in enumerate(SuppressionReason)}

ALL = "all"
"""Scope: no mail at all, transactional included."""
MARKETING = "marketing"
"""Scope: no marketing mail."""


def topic_scope(topic: str) -> str:
    """Scope: no mail of this topic."""
    return f"topic:{topic}"


def scope_in_words(scope: str) -> str:
    """How far a scope reaches, for people."""
    return {ALL: "all mail", MARKETING: "all marketing mail"}.get(
        scope, f"mail about “{scope.removeprefix('topic:')}”"
    )


def scopes_blocking(stream: str, topic: str) -> frozenset[str]:
    """The scopes that forbid a mail of this stream ("marketing" or "transactional") and topic."""
    scopes = {ALL}
    if stream == MARKETING:
        scopes.add(MARKETING)
    if topic:
        scopes.add(topic_scope(topic))
    return frozenset(scopes)

"""Reconciliation as tasks, the admin and `manage.py reconcile` call it."""

import time

from django.conf import settings
from django.db.models import QuerySet

from webhooks.models import Poll
from webhooks.reconciliation.accounts import accounts
from webhooks.reconciliation.lookups import run_look_ups
from webhooks.reconciliation.polls import (
    forget_cursors,
    hurry_polls,
    plan_polls,
    run_polls,
)

__all__ = ["NoSuchProvider", "forget_cursors", "hurry_polls", "reconcile", "reconcile_now"]


class NoSuchProvider(Exception):
    """No provider of that key has lists that can be read."""


def reconcile(*, budget: float) -> bool:
    """Read what is due and look for what is in doubt, for up to `budget` seconds; True if there
    may be more. Any number may do this at once: each list is read by one of them."""
    if settings.RECONCILE_HOURS <= 0:
        return False
    asked = accounts()
    plan_polls(asked)
    deadline = time.monotonic() + budget
    # First what somebody waits for.
    more = run_look_ups(asked, deadline=time.monotonic() + budget / 2)
    return run_polls(asked, deadline=deadline) or more


def reconcile_now(*, provider: str = "", whole: bool = False) -> QuerySet[Poll]:
    """Read the lists of every provider, or of the one of that key, whether due or not, to their
    ends; `whole`: also what was read before. Returns the polls, which tell what came of it.

    Raises `NoSuchProvider`.
    """
    asked = accounts(key=provider)
    if provider and not asked:
        raise NoSuchProvider(provider)
    plan_polls(asked)
    polls = Poll.objects.filter(
        provider__in=[account.provider for account in asked],
        source__in={account.kind for account in asked},
    )
    ids = list(polls.values_list("pk", flat=True))
    prepare = forget_cursors if whole else hurry_polls
    prepare(ids)
    run_look_ups(asked, deadline=float("inf"))
    run_polls(asked, deadline=float("inf"))
    return polls.select_related("provider")

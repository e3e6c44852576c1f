"""What waits in each lane, and what comes back and goes onwards: as /metrics and the admin's first
page tell it.

One statement each, over partial indexes and up to `MOST` rows: nothing here reads what is done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.conf import settings
from django.db import connection
from django.db.models import F
from django.db.models.functions import Extract, Now

from webhooks.mailbox.account import MailboxError, account_of
from webhooks.mailbox.services import digest_of
from webhooks.models import BounceMailbox, Poll
from webhooks.reconciliation.accounts import accounts
from webhooks.states import OutgoingState, ReceiptState

MOST = 100_000
"""A count that is this high says: so many, or more."""

LANES = ("events", "timers", "transactional", "marketing", "feedback", "outgoing")

# A lane's rows by the index that its claims use, earliest first. What is in a worker's hands
# counts: a worker that hangs must not hide what it holds.
_LANES = """
    WITH due (lane, at) AS (
        (SELECT 'events', due_at FROM events_event
         WHERE state = 'pending' AND due_at <= statement_timestamp()
         ORDER BY due_at LIMIT %(most)s)
        UNION ALL
        (SELECT 'timers', wake_at FROM campaigns_enrollment
         WHERE state = 'waiting' AND wake_at <= statement_timestamp()
         ORDER BY wake_at LIMIT %(most)s)
        UNION ALL
        (SELECT 'transactional', due_at FROM delivery_message
         WHERE state IN ('queued', 'retry') AND stream = 'transactional'
               AND due_at <= statement_timestamp()
         ORDER BY due_at LIMIT %(most)s)
        UNION ALL
        (SELECT 'marketing', due_at FROM delivery_message
         WHERE state IN ('queued', 'retry') AND stream = 'marketing'
               AND due_at <= statement_timestamp()
         ORDER BY due_at LIMIT %(most)s)
        UNION ALL
        (SELECT 'feedback', due_at FROM webhooks_receipt
         WHERE state IN ('pending', 'parked') AND attempts = 0
               AND due_at <= statement_timestamp()
         ORDER BY due_at LIMIT %(most)s)
        UNION ALL
        (SELECT 'feedback', due_at FROM webhooks_receipt
         WHERE state IN ('pending', 'parked') AND attempts > 0
               AND due_at <= statement_timestamp()
         ORDER BY due_at LIMIT %(most)s)
        UNION ALL
        (SELECT 'feedback', at FROM delivery_bounce WHERE NOT is_applied
         ORDER BY id LIMIT %(most)s)
        UNION ALL
        (SELECT 'feedback', due_at FROM delivery_visit
         WHERE actor = '' AND due_at <= statement_timestamp()
         ORDER BY due_at LIMIT %(most)s)
        UNION ALL
        (SELECT 'outgoing', d.due_at
         FROM webhooks_outgoingendpoint AS e
         CROSS JOIN LATERAL (
             SELECT due_at FROM webhooks_outgoingdelivery
             WHERE endpoint_id = e.id AND state = 'pending' AND due_at <= statement_timestamp()
             ORDER BY due_at LIMIT %(most)s) AS d
         WHERE e.is_active AND (e.resume_at IS NULL OR e.resume_at <= statement_timestamp())
         LIMIT %(most)s)
    )
    SELECT lane, least(count(*), %(most)s), extract(epoch FROM statement_timestamp() - min(at))
    FROM due GROUP BY lane
"""

_RECEIPTS = """
    WITH found (state, due_at) AS (
        (SELECT state, due_at FROM webhooks_receipt
         WHERE state IN ('pending', 'parked') AND attempts = 0 ORDER BY due_at LIMIT %(most)s)
        UNION ALL
        (SELECT state, due_at FROM webhooks_receipt
         WHERE state IN ('pending', 'parked') AND attempts > 0 ORDER BY due_at LIMIT %(most)s)
        UNION ALL
        (SELECT state, NULL FROM webhooks_receipt WHERE state = 'dead' LIMIT %(most)s)
    )
    SELECT state, least(count(*), %(most)s), extract(epoch FROM statement_timestamp() - min(due_at))
    FROM found GROUP BY state
"""

_DELIVERIES = """
    WITH found (state, due_at) AS (
        (SELECT d.state, d.due_at
         FROM webhooks_outgoingendpoint AS e
         CROSS JOIN LATERAL (
             SELECT state, due_at FROM webhooks_outgoingdelivery
             WHERE endpoint_id = e.id AND state = 'pending' ORDER BY due_at LIMIT %(most)s) AS d
         LIMIT %(most)s)
        UNION ALL
        (SELECT state, NULL FROM webhooks_outgoingdelivery WHERE state = 'dead' LIMIT %(most)s)
    )
    SELECT state, least(count(*), %(most)s), extract(epoch FROM statement_timestamp() - min(due_at))
    FROM found GROUP BY state
"""

_ANSWERS = """
    WITH found (at) AS (
        SELECT at FROM delivery_bounce WHERE NOT is_applied ORDER BY id LIMIT %(most)s)
    SELECT 'unapplied', count(*), extract(epoch FROM statement_timestamp() - min(at)) FROM found
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many rows there are, and since how many seconds the earliest is due; 0: none is."""

    count: int = 0
    seconds: float = 0.0


def lanes() -> Mapping[str, Waiting]:
    """What is due in each lane. Of outgoing webhooks: at endpoints that may be called."""
    return _ask(_LANES, LANES)


def receipts() -> Mapping[str, Waiting]:
    """Those that are not applied, by state."""
    return _ask(_RECEIPTS, [s for s in ReceiptState if s is not ReceiptState.APPLIED])


def outgoing_deliveries() -> Mapping[str, Waiting]:
    """Those that are not settled and those that are dead, whatever becomes of their endpoint."""
    return _ask(_DELIVERIES, [OutgoingState.PENDING, OutgoingState.DEAD])


def answers() -> Waiting:
    """What servers said at the hand-over, and feedback has not acted on."""
    return _ask(_ANSWERS, ["unapplied"])["unapplied"]


def _ask(statement: str, names: Sequence[str]) -> Mapping[str, Waiting]:
    with connection.cursor() as cursor:
        cursor.execute(statement, {"most": MOST})
        found = {
            name: Waiting(count, max(float(seconds or 0), 0.0))
            for name, count, seconds in cursor.fetchall()
        }
    return {str(name): found.get(name, Waiting()) for name in names}


@dataclass(frozen=True, slots=True)
class Lists:
    """The providers' lists: how many were read to their end and are not failing, how many are
    failing, how many were never read; and the seconds since the one was read that waits longest.
    None: there is none of which that is known."""

    read: int = 0
    failing: int = 0
    never: int = 0
    oldest: float | None = None


def lists() -> Lists:
    """Of the providers there are now, as what they are now: nobody reads the others any more. Two
    queries."""
    if settings.RECONCILE_HOURS <= 0:
        return Lists()
    asked = {(account.provider.pk, account.kind) for account in accounts()}
    rows = Poll.objects.order_by().values_list("provider_id", "source", "last_error")
    polls = [
        (error, age)
        for provider, source, error, age in rows.annotate(
            age=Extract(Now() - F("last_ok_at"), "epoch")
        )
        if (provider, source) in asked
    ]
    return Lists(
        read=sum(not error and age is not None for error, age in polls),
        failing=sum(bool(error) for error, _ in polls),
        never=sum(not error and age is None for error, age in polls),
        oldest=max((float(age) for _, age in polls if age is not None), default=None),
    )


def mailbox() -> BounceMailbox | None:
    """How the bounce mailbox was read of late; None: there is none, or one of no use."""
    if not settings.BOUNCE_MAILBOX_URL:
        return None
    try:
        key = digest_of(account_of(settings.BOUNCE_MAILBOX_URL))
    except MailboxError:  # a system check says so
        return None
    found = BounceMailbox.objects.defer("kept", "put_off").filter(pk=key).first()
    return found or BounceMailbox(account=key)

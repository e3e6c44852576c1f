"""Invariants of what left the house: I3, I5 and I6."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from common.addresses import address_hash
from delivery.handover import MAX_SECONDS
from delivery.mailboxes import mailbox_provider
from delivery.warmup import limit_name
from suppression.states import scopes_blocking
from tests.auditor.queries import found, selected
from tests.delivery.ledger import Taken

_NEVER = timedelta()
_WINDOWS = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
# A limit is counted by the time its transaction began, and none lives longer.
_LONGEST_TRANSACTION = timedelta(minutes=1)

_LONGEST_HANDOVER = timedelta(seconds=MAX_SECONDS)

_SUPPRESSED = "SELECT address_hash, scope, created_at FROM suppression_suppression"
_HANDED_OVER = """
    SELECT m.id, m.email_normalized, m.stream, coalesce(t.key, ''), m.handed_over_at
    FROM delivery_message AS m LEFT JOIN contacts_topic AS t ON t.id = m.topic_id
    WHERE m.handed_over_at IS NOT NULL
"""


def nothing_is_taken_twice(taken: Sequence[Taken]) -> list[str]:
    """I3: a provider, the sandbox included, has a message once at most, and the row says that it
    has it or may have it."""
    outside = Counter(entry.message_id for entry in taken)
    inside = selected(
        "SELECT message_id, count(*) FROM delivery_sandboxmail WHERE message_id IS NOT NULL"
        " GROUP BY message_id"
    )
    counts = outside + Counter(dict(inside))
    return [f"message {pk} was taken {n} times" for pk, n in counts.items() if n > 1] + found(
        """
        SELECT 'message ' || t.id || ' was taken and has no row'
        FROM unnest(%(outside)s::uuid[]) AS t (id)
        WHERE NOT EXISTS (SELECT FROM delivery_message AS m WHERE m.id = t.id)
        UNION ALL
        SELECT 'message ' || id || ' was taken and is ' || state FROM delivery_message
        WHERE id = ANY(%(taken)s::uuid[]) AND state NOT IN ('sent', 'unknown', 'dispatching')
              AND NOT (state IN ('retry', 'queued', 'claimed') AND replay_until IS NOT NULL)
              AND NOT (state = 'skipped' AND reason = 'discarded')
        UNION ALL
        SELECT 'message ' || id || ' may have been taken and is ' || state FROM delivery_message
        WHERE replay_until IS NOT NULL AND state IN ('held', 'failed', 'dead')
        """,
        outside=list(outside),
        taken=list(counts),
    )


def whoever_said_no_is_left_alone(taken: Sequence[Taken]) -> list[str]:
    """I5: no hand-over was committed after the suppression or withdrawal that forbids it, and
    nothing was taken later than a hand-over takes."""
    withdrawn = found(
        """
        SELECT 'message ' || m.id || ' was handed over after a withdrawal'
        FROM delivery_message AS m JOIN contacts_subscription AS s USING (contact_id, topic_id)
        WHERE m.stream = 'marketing' AND s.state = 'withdrawn' AND s.at < m.handed_over_at
        """
    )
    suppressed = defaultdict(list)
    for digest, scope, since in selected(_SUPPRESSED):
        suppressed[bytes(digest)].append((scope, since))
    if not suppressed:
        return withdrawn
    latest: dict[UUID, datetime] = {}
    for entry in taken:
        latest[entry.message_id] = datetime.fromtimestamp(entry.at, UTC) - _LONGEST_HANDOVER
    return withdrawn + [
        f"message {pk} was handed over after {scope} had been suppressed"
        for pk, address, stream, topic, handed_over_at in selected(_HANDED_OVER)
        for scope, since in suppressed[address_hash(address)]
        if since < max(handed_over_at, latest.get(pk, handed_over_at))
        and scope in scopes_blocking(stream, topic)
    ]


def caps_are_kept() -> list[str]:
    """I6: no more than its most was used of a limit, and no less than was handed over."""
    quotas = selected("SELECT name, starts_at, most, used FROM delivery_quota")
    if not quotas:
        return []
    handed = _handed_over()
    breaches = []
    for name, starts_at, most, used in quotas:
        limited, _, window = name.rpartition(":")
        begins, ends = starts_at + _LONGEST_TRANSACTION, starts_at + _WINDOWS.get(window, _NEVER)
        counted = sum(begins <= at < ends for at in handed[limited])
        if used > most:
            breaches.append(f"limit {name} of {most} was used {used} times")
        if counted > used:
            breaches.append(f"limit {name} says {used}, and {counted} were handed over")
    return breaches


def _handed_over() -> dict[str, list[datetime]]:
    """When each hand-over that was begun was committed, by what it counts against."""
    handed: dict[str, list[datetime]] = defaultdict(list)
    begun = selected(
        """
        SELECT p.key, p.id, m.sending_domain, m.email_normalized, m.handed_over_at
        FROM delivery_message AS m JOIN delivery_provider AS p ON p.id = m.provider_id
        JOIN delivery_attempt AS a ON a.message_id = m.id AND a.number = m.attempts
        """
    )
    for key, provider, domain, address, at in begun:
        handed[f"provider:{key}"].append(at)
        handed[limit_name(provider, domain, mailbox_provider(address))].append(at)
    return handed

"""The invariant auditor: what has to be true of the tables after every test, whatever it did.

`audit()` looks at the rows and at what providers say they took, never at the code that wrote them.
tests/conftest.py runs it after each test with a database, before that is flushed or rolled back;
tests/test_auditor.py breaks each invariant on purpose. I9 and I10 are about logs: tests/logbook.py.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection

from common.addresses import address_hash
from delivery.handover import MAX_SECONDS
from delivery.mailboxes import mailbox_provider
from delivery.states import WAITING_REASONS, Reason
from delivery.transitions import MAX_CRASHES
from delivery.warmup import limit_name
from suppression.states import scopes_blocking
from tests.delivery.ledger import Taken

LONGEST_WAIT = timedelta(hours=26)
"""A cap's day, and a margin; nothing waits longer by itself."""

_LIFTED = [*WAITING_REASONS, Reason.KILL_SWITCH, Reason.CAMPAIGN_PAUSED, Reason.REPUTATION]
_NEVER = timedelta()
_WINDOWS = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
# A limit is counted by the time its transaction began, and none lives longer.
_LONGEST_TRANSACTION = timedelta(minutes=1)


def audit(
    *,
    ledger: Iterable[Taken] = (),
    accepted: Iterable[str] = (),
    lease_seconds: int = 120,
    at_rest: bool = False,
) -> list[str]:
    """Every breach of an invariant, in words that begin with its name; empty when all is sound.

    `ledger` is what providers outside the database have taken, `accepted` the ids of events that
    were answered 202. `at_rest`: everybody has had their time, so nothing may be waiting.
    """
    taken = list(ledger)
    found = {
        "I1": nothing_is_stuck() + none_is_missing(accepted) + (nothing_waits() if at_rest else []),
        "I2": one_message_per_step(),
        "I3": nothing_is_taken_twice(taken),
        "I4": no_lease_is_forgotten(lease_seconds),
        "I5": whoever_said_no_is_left_alone(taken),
        "I6": caps_are_kept(),
        "I7": what_is_counted_is_right(),
        "I8": everything_has_its_reason(),
    }
    return [f"{name}: {breach}" for name, breaches in found.items() for breach in breaches]


def is_empty() -> bool:
    """Whether there is nothing to audit."""
    tables = (
        *("events_event", "webhooks_receipt", "campaigns_enrollment", "delivery_message"),
        *("delivery_sandboxmail", "delivery_quota", "contacts_consent", "contacts_subscription"),
    )
    (row,) = _rows(
        " OR ".join(f"EXISTS (SELECT FROM {table})" for table in tables).join(("SELECT ", ""))
    )
    return not row[0]


def nothing_is_stuck() -> list[str]:
    """I1: whatever is not final is found again, by its due time or by its lease."""
    return _found(
        """
        SELECT 'event ' || id || ' is ' || state FROM events_event
        WHERE state NOT IN ('pending', 'processed', 'ignored', 'dead')
        UNION ALL
        SELECT 'event ' || id || ' is pending and not due for a day' FROM events_event
        WHERE state = 'pending' AND due_at > statement_timestamp() + %(wait)s
        UNION ALL
        SELECT 'event ' || id || ' is ' || state || ' and leased' FROM events_event
        WHERE state <> 'pending' AND (claimed_until IS NOT NULL OR lease_owner <> '')
        UNION ALL
        SELECT 'receipt ' || id || ' is pending and not due for a day' FROM webhooks_receipt
        WHERE state = 'pending' AND due_at > statement_timestamp() + %(wait)s
        UNION ALL
        SELECT 'message ' || id || ' is ' || state || ' without a lease' FROM delivery_message
        WHERE state IN ('claimed', 'dispatching') AND (lease_until IS NULL OR lease_owner = '')
        UNION ALL
        SELECT 'message ' || id || ' is dispatching without a journal' FROM delivery_message
        WHERE state = 'dispatching' AND handover_id IS NULL
        UNION ALL
        SELECT 'message ' || id || ' is ' || state || ' and leased' FROM delivery_message
        WHERE state NOT IN ('claimed', 'dispatching')
              AND (lease_until IS NOT NULL OR lease_owner <> '')
        UNION ALL
        SELECT 'message ' || id || ' is ' || state || ' and not due for a day'
        FROM delivery_message
        WHERE (state IN ('queued', 'retry') OR state = 'held' AND reason = ANY(%(waiting)s))
              AND due_at > statement_timestamp() + %(wait)s
        UNION ALL
        SELECT 'message ' || id || ' is held for what nobody lifts: ' || reason
        FROM delivery_message
        WHERE state = 'held' AND reason <> 'gate_failed' AND reason <> ALL(%(lifted)s)
        UNION ALL
        SELECT 'enrollment ' || id || ' waits and is never woken' FROM campaigns_enrollment
        WHERE state = 'waiting' AND wake_at IS NULL
        UNION ALL
        SELECT 'enrollment ' || e.id || ' is ' || e.state || ' and still waits for an event'
        FROM campaigns_wait AS w JOIN campaigns_enrollment AS e ON e.id = w.enrollment_id
        WHERE e.state NOT IN ('waiting', 'parked')
        """,
        wait=LONGEST_WAIT,
        lifted=_LIFTED,
        waiting=list(WAITING_REASONS),
    )


def none_is_missing(accepted: Iterable[str]) -> list[str]:
    """I1: every event that was answered 202 is there."""
    return _found(
        """
        SELECT 'event ' || a.id || ' was accepted and is gone'
        FROM unnest(%(ids)s::text[]) AS a (id)
        WHERE NOT EXISTS (SELECT FROM events_event AS e WHERE e.event_id = a.id)
        """,
        ids=list(accepted),
    )


def nothing_waits() -> list[str]:
    """I1, once everybody has had their time: nothing is on its way any more."""
    return _found(
        """
        SELECT 'event ' || id || ' is still pending' FROM events_event WHERE state = 'pending'
        UNION ALL
        SELECT 'receipt ' || id || ' is still pending' FROM webhooks_receipt
        WHERE state = 'pending'
        UNION ALL
        SELECT 'message ' || id || ' is still ' || state FROM delivery_message
        WHERE state IN ('queued', 'retry', 'claimed', 'dispatching')
        """
    )


def one_message_per_step() -> list[str]:
    """I2: at most one message per enrollment and step, and its key says which."""
    return _found(
        """
        SELECT 'step ' || origin_step || ' of enrollment ' || origin_enrollment || ' has '
               || count(*) || ' messages'
        FROM delivery_message WHERE origin_enrollment <> ''
        GROUP BY origin_enrollment, origin_step HAVING count(*) > 1
        UNION ALL
        SELECT 'message ' || id || ' has the key of something else' FROM delivery_message
        WHERE origin_enrollment <> '' AND dedupe_key <> origin_enrollment || ':' || origin_step
        UNION ALL
        SELECT 'message ' || message_id || ' is that of ' || count(*) || ' steps'
        FROM campaigns_steprun WHERE message_id IS NOT NULL
        GROUP BY message_id HAVING count(*) > 1
        """
    )


def nothing_is_taken_twice(taken: Sequence[Taken]) -> list[str]:
    """I3: a provider, the sandbox included, has a message once at most, and the row says that it
    has it or may have it."""
    outside = Counter(entry.message_id for entry in taken)
    inside = _rows(
        "SELECT message_id, count(*) FROM delivery_sandboxmail WHERE message_id IS NOT NULL"
        " GROUP BY message_id"
    )
    counts = outside + Counter(dict(inside))
    return [f"message {pk} was taken {n} times" for pk, n in counts.items() if n > 1] + _found(
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


def no_lease_is_forgotten(lease_seconds: int) -> list[str]:
    """I4: no lease is older than twice its time, and none was given for longer than that."""
    return _found(
        """
        WITH leases AS (
            SELECT 'message ' || id AS what, lease_until AS until FROM delivery_message
            WHERE state IN ('claimed', 'dispatching')
            UNION ALL
            SELECT 'event ' || id, claimed_until FROM events_event WHERE state = 'pending'
            UNION ALL
            SELECT 'receipt ' || id, claimed_until FROM webhooks_receipt WHERE state = 'pending')
        SELECT what || ' was leased until ' || until FROM leases
        WHERE abs(extract(epoch FROM until - statement_timestamp())) > %(lease)s
        """,
        lease=lease_seconds,
    )


def whoever_said_no_is_left_alone(taken: Sequence[Taken]) -> list[str]:
    """I5: no hand-over was committed after the suppression or withdrawal that forbids it, and
    nothing was taken later than a hand-over takes."""
    withdrawn = _found(
        """
        SELECT 'message ' || m.id || ' was handed over after a withdrawal'
        FROM delivery_message AS m JOIN contacts_subscription AS s USING (contact_id, topic_id)
        WHERE m.stream = 'marketing' AND s.state = 'withdrawn' AND s.at < m.handed_over_at
        """
    )
    suppressed: dict[bytes, list[tuple[str, datetime]]] = defaultdict(list)
    for digest, *when in _rows(
        "SELECT address_hash, scope, created_at FROM suppression_suppression"
    ):
        suppressed[bytes(digest)].append((when[0], when[1]))
    if not suppressed:
        return withdrawn
    messages = {pk: row for pk, *row in _rows(_ADDRESSED)}
    left = [(pk, row[-1]) for pk, row in messages.items() if row[-1] is not None]
    grace = timedelta(seconds=MAX_SECONDS)
    left += [(t.message_id, datetime.fromtimestamp(t.at, UTC) - grace) for t in taken]
    return withdrawn + [
        f"message {pk} was handed over after {scope} had been suppressed"
        for pk, moment in left
        if pk in messages
        for scope, since in suppressed[address_hash(messages[pk][0])]
        if since < moment and scope in scopes_blocking(*messages[pk][1:3])
    ]


_ADDRESSED = """
    SELECT m.id, m.email_normalized, m.stream, coalesce(t.key, ''), m.handed_over_at
    FROM delivery_message AS m LEFT JOIN contacts_topic AS t ON t.id = m.topic_id
"""


def caps_are_kept() -> list[str]:
    """I6: no more than its most was used of a limit, and no less than was handed over."""
    quotas = _rows("SELECT name, starts_at, most, used FROM delivery_quota")
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
    rows = _rows(
        """
        SELECT p.key, p.id, m.sending_domain, m.email_normalized, m.handed_over_at
        FROM delivery_message AS m JOIN delivery_provider AS p ON p.id = m.provider_id
        JOIN delivery_attempt AS a ON a.message_id = m.id AND a.number = m.attempts
        """
    )
    for key, provider, domain, address, at in rows:
        handed[f"provider:{key}"].append(at)
        handed[limit_name(provider, domain, mailbox_provider(address))].append(at)
    return handed


def what_is_counted_is_right() -> list[str]:
    """I7: what is stored as a number, or as the state of something, is what its rows say."""
    return _found(
        """
        SELECT 'enrollment ' || e.id || ' has run ' || count(s.id) || ' steps and says ' || e.seq
        FROM campaigns_enrollment AS e LEFT JOIN campaigns_steprun AS s ON s.enrollment_id = e.id
        GROUP BY e.id HAVING count(s.id) <> e.seq OR coalesce(max(s.seq), 0) <> e.seq
        UNION ALL
        SELECT 'attempt ' || a.number || ' of message ' || m.id || ' was not made'
        FROM delivery_attempt AS a JOIN delivery_message AS m ON m.id = a.message_id
        WHERE a.number NOT BETWEEN 1 AND m.attempts
        UNION ALL
        SELECT 'message ' || id || ' failed ' || failures || ' times in ' || attempts
        FROM delivery_message WHERE failures > attempts
        UNION ALL
        SELECT 'message ' || id || ' has ' || attempts || ' attempts and hand-over '
               || coalesce(handed_over_at::text, 'never')
        FROM delivery_message WHERE (attempts > 0) <> (handed_over_at IS NOT NULL)
        UNION ALL
        SELECT 'contact ' || contact_id || ' said ' || coalesce(said.state, 'nothing')
               || ' last and is ' || coalesce(stands.state, 'nothing')
        FROM (SELECT DISTINCT ON (contact_id, topic_id) contact_id, topic_id, state
              FROM contacts_consent ORDER BY contact_id, topic_id, id DESC) AS said
        FULL JOIN contacts_subscription AS stands USING (contact_id, topic_id)
        WHERE said.state IS DISTINCT FROM stands.state
        """
    )


def everything_has_its_reason() -> list[str]:
    """I8: of whatever ended, the rows say how: an attempt, a proof, or a reason."""
    return _found(
        """
        SELECT 'message ' || id || ' is ' || state || ' without a reason' FROM delivery_message
        WHERE state IN ('unknown', 'failed', 'dead', 'skipped', 'held') AND reason = ''
        UNION ALL
        SELECT 'message ' || id || ' is sent, and ' || coalesce(sent_at::text, 'never ')
               || reason FROM delivery_message
        WHERE state = 'sent' AND (reason <> '' OR sent_at IS NULL)
        UNION ALL
        SELECT 'message ' || m.id || ' is ' || m.state || ' without an attempt'
        FROM delivery_message AS m
        WHERE (m.state IN ('sent', 'unknown') OR m.reason IN ('refused', 'attempts_exhausted'))
              AND num_nonnulls(m.delivered_at, m.opened_at, m.clicked_at, m.bounced_at,
                               m.complained_at) = 0
              AND NOT EXISTS (SELECT FROM delivery_attempt AS a WHERE a.message_id = m.id)
        UNION ALL
        SELECT 'message ' || id || ' is given up after ' || crashes || ' crashes'
        FROM delivery_message WHERE reason = 'crashed' AND crashes < %(crashes)s
        UNION ALL
        SELECT 'event ' || id || ' is ' || state || ' without a reason' FROM events_event
        WHERE state = 'ignored' AND reason = '' OR state = 'dead' AND error = ''
              OR state = 'processed' AND reason <> ''
        UNION ALL
        SELECT 'receipt ' || id || ' is dead without a reason' FROM webhooks_receipt
        WHERE state = 'dead' AND error = ''
        UNION ALL
        SELECT 'enrollment ' || id || ' is ' || state || ' without a reason'
        FROM campaigns_enrollment
        WHERE state = 'exited' AND exit_reason = '' OR state = 'parked' AND error = ''
        """,
        crashes=MAX_CRASHES,
    )


def _found(statement: str, **parameters: Any) -> list[str]:
    return [breach for (breach,) in _rows(statement, **parameters)]


def _rows(statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows

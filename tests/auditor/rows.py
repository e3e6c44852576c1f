"""Invariants of rows by themselves: I1, I2, I4, I7 and I8."""

from collections.abc import Iterable
from datetime import timedelta

from delivery.statements import MAX_CRASHES
from delivery.states import WAITING_REASONS, Reason
from tests.auditor.queries import found

LONGEST_WAIT = timedelta(hours=26)
"""A cap's day, and a margin; nothing waits longer by itself."""

_LIFTED = [*WAITING_REASONS, Reason.KILL_SWITCH, Reason.CAMPAIGN_PAUSED, Reason.REPUTATION]


def nothing_is_stuck() -> list[str]:
    """I1: whatever is not final is found again, by its due time or by its lease."""
    return found(
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
    return found(
        """
        SELECT 'event ' || a.id || ' was accepted and is gone'
        FROM unnest(%(ids)s::text[]) AS a (id)
        WHERE NOT EXISTS (SELECT FROM events_event AS e WHERE e.event_id = a.id)
        """,
        ids=list(accepted),
    )


def nothing_waits() -> list[str]:
    """I1, once everybody has had their time: nothing is on its way any more."""
    return found(
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
    return found(
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


def no_lease_is_forgotten(lease_seconds: int) -> list[str]:
    """I4: no lease is older than twice its time, and none was given for longer than that."""
    return found(
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


def what_is_counted_is_right() -> list[str]:
    """I7: what is stored as a number, or as the state of something, is what its rows say."""
    return found(
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
              FROM contacts_consent WHERE purpose = 'mail'
              ORDER BY contact_id, topic_id, id DESC) AS said
        FULL JOIN contacts_subscription AS stands USING (contact_id, topic_id)
        WHERE said.state IS DISTINCT FROM stands.state
        UNION ALL
        SELECT 'contact ' || c.id || ' said ' || said.state || ' to tracking last'
        FROM (SELECT DISTINCT ON (contact_id) contact_id, state FROM contacts_consent
              WHERE purpose = 'tracking' ORDER BY contact_id, id DESC) AS said
        JOIN contacts_contact AS c ON c.id = said.contact_id
        WHERE c.may_track <> (said.state = 'granted')
        UNION ALL
        SELECT 'message ' || id || ' is ' || stream || ' and tracked'
        FROM delivery_message WHERE is_tracked AND stream <> 'marketing'
        UNION ALL
        SELECT 'message ' || m.id || ' was visited by a person and says never'
        FROM delivery_message AS m JOIN delivery_visit AS v ON v.message_id = m.id
        WHERE v.actor = 'person'
              AND CASE WHEN v.link_id IS NULL THEN m.opened_at ELSE m.clicked_at END IS NULL
        """
    )


def everything_has_its_reason() -> list[str]:
    """I8: of whatever ended, the rows say how: an attempt, a proof, or a reason."""
    return found(
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

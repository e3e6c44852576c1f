"""How much went out and how much of it came back, for whatever could be at fault.

What went out is rolled up once for each ten minutes that are over; what is younger, and the little
that came back, is counted as it stands; so are the ten minutes in which something was pardoned, of
which one part counts and the other does not. A mail whose acceptance is proven later, for a time
that has been rolled up, is missing in its tally; there are few, and it makes the breaker stricter.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, fields

from django.db import connection

from delivery.mailboxes import WITHOUT_FEEDBACK_LOOP
from delivery.routes import SANDBOX
from delivery.switches import Scope


@dataclass(frozen=True, slots=True)
class Counts:
    """Mails of the last hour, day and week: handed over, and of these what came back how.

    `heard_*` leaves out those to mailbox providers that tell nobody about complaints.
    """

    sent_hour: int = 0
    sent_day: int = 0
    heard_day: int = 0
    heard_week: int = 0
    bounced: int = 0
    complained: int = 0
    complained_week: int = 0
    unsubscribed: int = 0
    throttled: int = 0
    blocked: int = 0
    unauthenticated: int = 0
    unknown: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


Cell = tuple[str, str]
"""A campaign and a mailbox provider."""


def counted() -> Mapping[Scope, Mapping[Cell, Counts]]:
    """For each scope that sent anything within a week, its counts by campaign and mailbox provider,
    without what has been pardoned. One query."""
    found: dict[Scope, dict[Cell, Counts]] = defaultdict(dict)
    with connection.cursor() as cursor:
        cursor.execute(_COUNTS, {"deaf": list(WITHOUT_FEEDBACK_LOOP), "sandbox": SANDBOX})
        for target, key, campaign, mailboxes, *numbers in cursor.fetchall():
            found[target, key][campaign, mailboxes] = Counts(*map(int, numbers))
    return found


def roll_up() -> int:
    """Tally what has been over for a minute and is not tallied yet, and forget what no rule looks
    at any more; returns the number of new tallies. Idempotent, safe at the same time."""
    with connection.cursor() as cursor:
        cursor.execute(_ROLL_UP)
        new: int = cursor.rowcount
        if new:
            cursor.execute(_FORGET)
            cursor.execute(_FORGET_QUOTAS)
    return new


_TALLIED_UNTIL = """(
    SELECT GREATEST(coalesce(max(starts_at) + interval '10 minutes', '-infinity'),
                    date_bin('10 minutes', statement_timestamp() - interval '7 days', 'epoch'))
    FROM delivery_tally)"""

_ROLL_UP = f"""
    INSERT INTO delivery_tally (starts_at, provider_id, campaign, stream, domain, mailboxes, sent)
    SELECT date_bin('10 minutes', sent_at, 'epoch') AS bin, provider_id, origin_campaign, stream,
           sending_domain, mailboxes, count(*)
    FROM delivery_message
    WHERE sent_at >= {_TALLIED_UNTIL} AND provider_id IS NOT NULL
      AND sent_at < date_bin('10 minutes', statement_timestamp() - interval '1 minute', 'epoch')
    GROUP BY bin, provider_id, origin_campaign, stream, sending_domain, mailboxes
    ON CONFLICT DO NOTHING
"""  # noqa: S608 - a constant of this module

_FORGET = """
    DELETE FROM delivery_tally WHERE starts_at < statement_timestamp() - interval '8 days'
"""

# The charts of the warm-ups show a month.
_FORGET_QUOTAS = """
    DELETE FROM delivery_quota WHERE starts_at < statement_timestamp() - interval '40 days'
"""

# What was pardoned in a narrower scope is not held against a wider one.
#
# A bounce counts for the moment of its mail, what a receiver does to us now for the last time it
# did: mail that is put off comes back for hours. What was refused in the hand-over was never sent,
# but tried. What the sandbox has the sweep looks up: between a worker's death and that, doubts are
# no provider's fault. The doubts that a provider was stopped for count as long as it is: only an
# answer clears them up, the passing of time does not.
_COUNTS = f"""
    WITH parted AS (
        SELECT DISTINCT date_bin('10 minutes', at, 'epoch') AS bin FROM delivery_pardon
        WHERE at > statement_timestamp() - interval '7 days'
    ), seen AS (
        SELECT starts_at AS at, provider_id, campaign, stream, domain, mailboxes, sent,
               0 AS bounced, 0 AS complained, 0 AS unsubscribed, 0 AS throttled, 0 AS blocked,
               0 AS unauthenticated, 0 AS unknown
        FROM delivery_tally
        WHERE starts_at > statement_timestamp() - interval '7 days'
          AND starts_at NOT IN (SELECT bin FROM parted)
      UNION ALL
        SELECT sent_at, provider_id, origin_campaign, stream, sending_domain, mailboxes, 1,
               0, 0, 0, 0, 0, 0, 0
        FROM delivery_message WHERE sent_at >= {_TALLIED_UNTIL}
      UNION ALL
        SELECT m.sent_at, m.provider_id, m.origin_campaign, m.stream, m.sending_domain,
               m.mailboxes, 1, 0, 0, 0, 0, 0, 0, 0
        FROM parted AS p JOIN delivery_message AS m
          ON m.sent_at >= p.bin AND m.sent_at < p.bin + interval '10 minutes'
        WHERE m.sent_at < {_TALLIED_UNTIL}
      UNION ALL
        SELECT sent_at, provider_id, origin_campaign, stream, sending_domain, mailboxes, 0,
               0, (complained_at IS NOT NULL)::int, (unsubscribed_at IS NOT NULL)::int, 0, 0, 0, 0
        FROM delivery_message
        WHERE sent_at > statement_timestamp() - interval '7 days'
          AND (complained_at IS NOT NULL OR unsubscribed_at IS NOT NULL)
      UNION ALL
        SELECT CASE WHEN b.bounce_class IN ('hard', 'owner_changed')
                    THEN coalesce(m.sent_at, b.at) ELSE coalesce(b.last_at, b.at) END,
               m.provider_id, m.origin_campaign, m.stream, m.sending_domain, m.mailboxes,
               (m.sent_at IS NULL)::int, (b.bounce_class IN ('hard', 'owner_changed'))::int, 0, 0,
               (b.bounce_class = 'throttle')::int, (b.bounce_class = 'block')::int,
               (b.bounce_class = 'auth'
                AND coalesce(b.last_at, b.at) > statement_timestamp() - interval '10 minutes')::int,
               0
        FROM delivery_bounce AS b JOIN delivery_message AS m ON m.id = b.message_id
        WHERE b.at > statement_timestamp() - interval '24 hours'
           OR b.last_at > statement_timestamp() - interval '24 hours'
      UNION ALL
        SELECT m.handed_over_at, m.provider_id, m.origin_campaign, m.stream, m.sending_domain,
               m.mailboxes, 0, 0, 0, 0, 0, 0, 0, 1
        FROM delivery_message AS m
        LEFT JOIN delivery_provider AS v ON v.id = m.provider_id
        LEFT JOIN delivery_switch AS w
          ON w.target = 'provider' AND w.key = v.key AND w.reason = 'reputation'
        WHERE m.state = 'unknown' AND m.route <> %(sandbox)s
          AND m.handed_over_at
              > coalesce(w.created_at, statement_timestamp()) - interval '24 hours'
    ), dated AS (
        SELECT *, at > statement_timestamp() - interval '1 hour' AS in_hour,
               at > statement_timestamp() - interval '24 hours' AS in_day
        FROM seen
    )
    SELECT s.target, s.key, d.campaign, d.mailboxes,
           coalesce(sum(sent) FILTER (WHERE in_hour), 0),
           coalesce(sum(sent) FILTER (WHERE in_day), 0),
           coalesce(sum(sent) FILTER (WHERE in_day AND mailboxes <> ALL(%(deaf)s)), 0),
           coalesce(sum(sent) FILTER (WHERE mailboxes <> ALL(%(deaf)s)), 0),
           coalesce(sum(bounced) FILTER (WHERE in_day), 0),
           coalesce(sum(complained) FILTER (WHERE in_day), 0),
           coalesce(sum(complained), 0),
           coalesce(sum(unsubscribed) FILTER (WHERE in_day), 0),
           coalesce(sum(throttled) FILTER (WHERE in_hour), 0),
           coalesce(sum(blocked) FILTER (WHERE in_hour), 0),
           coalesce(sum(unauthenticated), 0),
           coalesce(sum(unknown), 0)
    FROM dated AS d
    LEFT JOIN delivery_provider AS v ON v.id = d.provider_id
    CROSS JOIN LATERAL (VALUES
        ('campaign', d.campaign),
        ('mailboxes', d.stream || ':' || d.domain || ':' || d.mailboxes),
        ('stream', d.stream || ':' || d.domain),
        ('domain', d.domain),
        ('provider', coalesce(v.key, ''))) AS s (target, key)
    LEFT JOIN delivery_pardon AS p ON p.target = s.target AND p.key = s.key
    LEFT JOIN delivery_pardon AS c
      ON c.target = 'campaign' AND c.key = d.campaign AND s.target IN ('mailboxes', 'stream')
    LEFT JOIN delivery_pardon AS b
      ON b.target = 'mailboxes' AND b.key = d.stream || ':' || d.domain || ':' || d.mailboxes
     AND s.target = 'stream'
    WHERE s.key <> '' AND d.at >= GREATEST(p.at, c.at, b.at, '-infinity')
    GROUP BY 1, 2, 3, 4
"""  # noqa: S608 - a constant of this module

"""The reputation breaker: when too much of what was sent comes back, what is at fault stops.

Looked at are the last 24 hours, first by campaign, then by stream and sending domain without what
the campaigns at fault have sent. A rate counts with its lower bound at 95 % (Wilson), so that one
complaint of two hundred stops nobody. Gmail and SES review senders from these rates on.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from django.db import connection

from delivery.models import Switch
from delivery.rates import at_least
from delivery.services import stop_sending
from delivery.states import Reason

logger = logging.getLogger(__name__)

MOST_BOUNCES = 0.05
MOST_COMPLAINTS = 0.003
ENOUGH_SENT = 500
ENOUGH_BOUNCES = 25
ENOUGH_COMPLAINTS = 5
_EVERY_SECONDS = 30.0

_looked_at = float("-inf")


@dataclass(frozen=True, slots=True)
class Counts:
    """Of the mails that were sent in a day: how many came back how."""

    sent: int = 0
    bounces: int = 0
    complaints: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.sent + other.sent,
            self.bounces + other.bounces,
            self.complaints + other.complaints,
        )


def fault(counts: Counts) -> str:
    """What is wrong, in words; empty when nothing is, or nothing can be told yet. Pure."""
    enough = counts.sent >= ENOUGH_SENT or counts.bounces >= ENOUGH_BOUNCES
    if enough and at_least(counts.bounces, counts.sent) >= MOST_BOUNCES:
        return f"{counts.bounces} of {counts.sent} mails in 24 h bounced"
    complained = at_least(counts.complaints, counts.sent)
    if counts.complaints >= ENOUGH_COMPLAINTS and complained >= MOST_COMPLAINTS:
        return f"{counts.complaints} of {counts.sent} mails in 24 h were called spam"
    return ""


def judge() -> list[Switch]:
    """Stop what is at fault; returns the new switches. Two queries while nothing is."""
    stopped = {(switch.target, switch.key) for switch in Switch.objects.all()}
    new: dict[tuple[str, str], str] = {}
    by_way: dict[str, Counts] = defaultdict(Counts)
    for campaign, ways in _counts().items():
        total = sum((own for own, _ in ways.values()), Counts())
        words = fault(total) if campaign else ""
        if words:
            new[Switch.Target.CAMPAIGN, campaign] = words
        elif (Switch.Target.CAMPAIGN, campaign) not in stopped:
            for way, (_, counts) in ways.items():
                by_way[way] += counts
    for way, counts in by_way.items():
        if words := fault(counts):
            new[Switch.Target.STREAM, way] = words
    switches = []
    for (target, key), words in new.items():
        if (target, key) not in stopped:
            logger.warning("reputation at risk", extra={"target": target, "key": key})
            stop_sending(target, key, reason=Reason.REPUTATION, note=words)
            switches.append(Switch.objects.get(target=target, key=key))
    return switches


def judge_now_and_then() -> None:
    """For the sweep, which comes far more often than rates change."""
    global _looked_at
    if time.monotonic() - _looked_at >= _EVERY_SECONDS:
        _looked_at = time.monotonic()
        judge()


# What an operator has seen and let go on is not held against it again.
_COUNTS = """
    SELECT m.origin_campaign, m.stream || ':' || m.sending_domain,
           count(*) FILTER (WHERE m.sent_at > COALESCE(own.at, '-infinity')),
           count(m.bounced_at) FILTER (WHERE m.sent_at > COALESCE(own.at, '-infinity')),
           count(m.complained_at) FILTER (WHERE m.sent_at > COALESCE(own.at, '-infinity')),
           count(*) FILTER (WHERE m.sent_at > GREATEST(own.at, way.at, '-infinity')),
           count(m.bounced_at) FILTER (WHERE m.sent_at > GREATEST(own.at, way.at, '-infinity')),
           count(m.complained_at) FILTER (WHERE m.sent_at > GREATEST(own.at, way.at, '-infinity'))
    FROM delivery_message AS m
    LEFT JOIN delivery_pardon AS own ON own.target = 'campaign' AND own.key = m.origin_campaign
    LEFT JOIN delivery_pardon AS way
      ON way.target = 'stream' AND way.key = m.stream || ':' || m.sending_domain
    WHERE m.sent_at > statement_timestamp() - interval '24 hours'
    GROUP BY 1, 2
"""


def _counts() -> Mapping[str, Mapping[str, tuple[Counts, Counts]]]:
    """By campaign and by stream and domain: what counts against the one and against the other."""
    found: dict[str, dict[str, tuple[Counts, Counts]]] = defaultdict(dict)
    with connection.cursor() as cursor:
        cursor.execute(_COUNTS)
        for campaign, way, *numbers in cursor.fetchall():
            found[campaign][way] = Counts(*numbers[:3]), Counts(*numbers[3:])
    return found

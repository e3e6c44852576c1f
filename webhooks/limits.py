"""The soft limit: an address at which nothing arrived for weeks gets no marketing mail for a while.

Decided from the rows alone, after they were written, so that the order in which things came back
makes no difference: mail that is told to have arrived after all lifts it again.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from django.db import connection

from common.addresses import Address, address_hash
from common.clock import now
from delivery.bounces import BounceClass
from suppression.services import (
    SuppressionRequest,
    lift_limits,
    limited_addresses,
    suppress_addresses,
)
from suppression.states import MARKETING, SuppressionReason
from webhooks.matching import ARRIVED, Match

BOUNCES = 5
SPAN = timedelta(days=14)
PAUSE = timedelta(days=90)
"""After which the address is tried again. Transactional mail is not kept back at all."""

# A mail counts once, however often it was put off, and not when a server that put it off took it
# later. It is over as soon as one arrived. Servers of one's own do not tell what arrived: there a
# mail did that left and of which nothing came back for days.
_UNREACHED = """
    WITH mail AS MATERIALIZED (
        SELECT asked.address, m.id, m.sent_at,
               LEAST(m.delivered_at, m.opened_at, m.clicked_at) AS arrived_at
        FROM unnest(%s::text[]) AS asked (address)
        JOIN delivery_message AS m ON m.email_normalized = asked.address
    ), returned AS MATERIALIZED (
        SELECT mail.address, mail.id, mail.sent_at, b.at, b.bounce_class, b.email_normalized
        FROM mail JOIN delivery_bounce AS b ON b.message_id = mail.id
    ), arrived AS (
        SELECT address,
               max(coalesce(arrived_at, CASE
                   WHEN sent_at < statement_timestamp() - interval '3 days'
                        AND id NOT IN (SELECT id FROM returned)
                   THEN sent_at END)) AS at
        FROM mail GROUP BY address
    )
    SELECT r.address, count(DISTINCT r.id), max(r.at)
    FROM returned AS r JOIN arrived AS a USING (address)
    WHERE r.bounce_class = 'soft' AND r.email_normalized IN ('', r.address)
          AND r.at > coalesce(a.at, '-infinity') AND (r.sent_at IS NULL OR r.sent_at <= r.at)
    GROUP BY r.address
    HAVING count(DISTINCT r.id) >= %s AND max(r.at) - min(r.at) >= %s * interval '1 day'
"""


def addresses_to_judge(matches: Iterable[Match]) -> dict[str, Address]:
    """Those about which something was told that may set the limit, or lift it. One query at most.

    Asked for beforehand, because their locks have to be taken before those of messages.
    """
    soft: dict[str, Address] = {}
    arrived: dict[bytes, Address] = {}
    for match in matches:
        address = match.address
        if match.message is None or address is None:
            continue
        if match.bounce_class is BounceClass.SOFT:
            soft[address.normalized] = address
        elif match.feedback.kind in ARRIVED:
            arrived[address_hash(address.normalized)] = address
    limited = limited_addresses(arrived) if arrived else set()
    return soft | {arrived[digest].normalized: arrived[digest] for digest in limited}


def judge_addresses(addresses: Mapping[str, Address]) -> None:
    """Set or lift the limit of each address, by what is on record about it."""
    if not addresses:
        return
    unreached = _unreached(sorted(addresses))
    suppress_addresses(
        [
            SuppressionRequest(
                addresses[normalized],
                MARKETING,
                SuppressionReason.SOFT_LIMIT,
                source="soft limit",
                evidence=f"{count} mails did not arrive, none did in between",
                expires_at=last + PAUSE,
            )
            for normalized, (count, last) in unreached.items()
            if last + PAUSE > now()
        ]
    )
    lift_limits(address_hash(address) for address in addresses.keys() - unreached.keys())


def _unreached(addresses: Sequence[str]) -> dict[str, tuple[int, datetime]]:
    with connection.cursor() as cursor:
        cursor.execute(_UNREACHED, [list(addresses), BOUNCES, SPAN.days])
        return {address: (count, last) for address, count, last in cursor.fetchall()}

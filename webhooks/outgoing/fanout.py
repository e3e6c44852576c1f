"""Queueing news for the endpoints that want it, in the transaction in which it became known."""

from collections.abc import Iterator, Sequence
from functools import partial

from django.db import connection, transaction

from common.bell import ring
from webhooks.models import OutgoingEndpoint
from webhooks.news import News
from webhooks.outgoing.payloads import body_of, event_id_of

Row = tuple[int, str, str, int, str]
"""Endpoint, event id, type, contact, body."""

_INSERT = """
    INSERT INTO webhooks_outgoingdelivery
        (endpoint_id, event_id, type, contact_id, body, state, attempts, lease_owner, answer)
    SELECT n.*, 'pending', 0, '', ''
    FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[], %s::text[])
         AS n (endpoint_id, event_id, type, contact_id, body)
    ON CONFLICT (endpoint_id, event_id) DO NOTHING
"""


def queue_deliveries(news: Sequence[News]) -> int:
    """Queue what active endpoints want to hear; returns how many deliveries are new.

    Two statements whatever the number, one without an active endpoint, none without news.
    Idempotent per endpoint and id of the news. The messages bring contact and topic along. Of
    people who said `do_not_share` nothing is queued. The lane is rung at the commit.
    """
    told = [item for item in news if not item.message.contact.do_not_share]
    if not told:
        return 0
    # In one order, so that two transactions that tell the same do not wait for each other.
    rows = sorted(_rows(told, list(OutgoingEndpoint.objects.filter(is_active=True))))
    if not rows:
        return 0
    with connection.cursor() as cursor:
        cursor.execute(_INSERT, [list(column) for column in zip(*rows, strict=True)])
        queued: int = cursor.rowcount
    # Only for speed: the sweep rings, too.
    transaction.on_commit(partial(ring, "outgoing"))
    return queued


def _rows(news: Sequence[News], endpoints: Sequence[OutgoingEndpoint]) -> Iterator[Row]:
    for item in news:
        wanting = [endpoint for endpoint in endpoints if endpoint.wants(item.type)]
        variants = {endpoint.with_address for endpoint in wanting}
        bodies = {variant: body_of(item, with_address=variant) for variant in variants}
        for endpoint in wanting:
            body = bodies[endpoint.with_address]
            yield endpoint.pk, event_id_of(item), item.type, item.message.contact_id, body

"""The destinations of tracked links: stored before a mail with them leaves."""

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from django.db import connection

from delivery.models import Link

KEPT = timedelta(days=2 * 366)
"""How long after the last mail with it a link still leads somewhere."""

# Rows others are changing are either touched by them or being purged; in the latter case the
# insertion waits for that and then finds none.
_STORE = """
    WITH wanted AS (SELECT * FROM unnest(%s::uuid[], %s::text[]) AS w (id, url)),
    stale AS (
        SELECT l.id FROM delivery_link AS l JOIN wanted USING (id)
        WHERE l.used_on < current_date ORDER BY l.id FOR NO KEY UPDATE OF l SKIP LOCKED),
    touched AS (
        UPDATE delivery_link AS l SET used_on = current_date FROM stale WHERE l.id = stale.id)
    INSERT INTO delivery_link (id, url, used_on)
    SELECT id, url, current_date FROM wanted ORDER BY id
    ON CONFLICT (id) DO NOTHING
"""

_CHUNK = 5_000
_PURGE = """
    DELETE FROM delivery_link WHERE id IN (
        SELECT l.id FROM delivery_link AS l
        WHERE l.used_on < current_date - %s
              AND NOT EXISTS (SELECT FROM delivery_visit AS v WHERE v.link_id = l.id)
        LIMIT %s FOR UPDATE SKIP LOCKED)
"""


def store_links(links: Mapping[UUID, str]) -> None:
    """Keep where these lead, one statement whatever their number. Idempotent.

    Own transaction, so that no two batches with the same links wait for each other's hand-over;
    a link of a mail that does not leave after all is harmless.
    """
    if links:
        with connection.cursor() as cursor:
            cursor.execute(_STORE, [list(links), list(links.values())])


def url_of(link: UUID) -> str | None:
    """Where the link leads, or None when it is not kept any more."""
    return Link.objects.filter(pk=link).values_list("url", flat=True).first()


def purge_links() -> int:
    """Delete what no mail has named for two years and nobody is on record to have followed;
    returns how many. Stops in the middle without harm."""
    gone, count = 0, _CHUNK
    while count == _CHUNK:
        with connection.cursor() as cursor:
            cursor.execute(_PURGE, [KEPT.days, _CHUNK])
            count = cursor.rowcount
        gone += count
    return gone

"""At most so many marketing mails in seven days, where a person wants no more.

Counted are the messages themselves, so there is no second number that could be wrong: whatever a
provider has or may have. Whoever is about to commit hand-overs counts under a lock of each such
person, which is held until the commit; so of two workers one sees what the other has promised.
"""

from collections import Counter
from collections.abc import Mapping

from django.db import connection

from common.postgres import lock_names

_SENT = """
    SELECT contact_id, count(*) FROM delivery_message
    WHERE contact_id = ANY(%s) AND stream = 'marketing'
          AND handed_over_at > statement_timestamp() - interval '7 days'
          AND (state IN ('dispatching', 'sent', 'unknown') OR replay_until IS NOT NULL)
    GROUP BY contact_id
"""


class Week:
    """What the people of a batch have had, and what they want at most; absent = no limit."""

    def __init__(self, limits: Mapping[int, int], *, takes_places: bool) -> None:
        self._limits = limits
        self._takes_places = takes_places
        self._had: Counter[int] = Counter(_sent(limits) if limits else {})

    def has_room(self, contact_id: int) -> bool:
        """Whether one more may go to this person; where the answer is binding, it goes."""
        limit = self._limits.get(contact_id)
        if limit is None:
            return True
        if self._had[contact_id] >= limit:
            return False
        if self._takes_places:
            self._had[contact_id] += 1
        return True


def week_so_far(limits: Mapping[int, int]) -> Week:
    """What stands now; not binding, it saves the work for mails that could not leave anyway. One
    query, none without limits."""
    return Week(limits, takes_places=False)


def binding_week(limits: Mapping[int, int]) -> Week:
    """The same under the lock of each person, inside the caller's transaction. Two queries, none
    without limits. Taken after the locks of addresses, everywhere."""
    lock_names((b"week:%d" % contact_id for contact_id in limits), shared=False)
    return Week(limits, takes_places=True)


def _sent(contacts: Mapping[int, int]) -> dict[int, int]:
    with connection.cursor() as cursor:
        cursor.execute(_SENT, [list(contacts)])
        return dict(cursor.fetchall())

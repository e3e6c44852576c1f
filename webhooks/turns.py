"""Taking a turn, keeping it, and leaving it to others: each one statement that counts its rows."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from django.db import Error, connection

from common.ids import lease_owner

_TAKE = """
    INSERT INTO webhooks_turn AS t (name, lease_owner, lease_until)
    VALUES (%s, %s, statement_timestamp() + %s * interval '1 second')
    ON CONFLICT (name) DO UPDATE
    SET lease_owner = excluded.lease_owner, lease_until = excluded.lease_until
    WHERE t.lease_until IS NULL OR t.lease_until < statement_timestamp()
"""

_RENEW = """
    UPDATE webhooks_turn SET lease_until = statement_timestamp() + %s * interval '1 second'
    WHERE name = %s AND lease_owner = %s
"""

_LEAVE = """
    UPDATE webhooks_turn SET lease_owner = '', lease_until = NULL
    WHERE name = %s AND lease_owner = %s
"""


@dataclass(slots=True)
class Lease:
    """A turn that was taken for `seconds`."""

    name: str
    owner: str
    seconds: float
    renewed_at: float

    def keep(self) -> bool:
        """Whether it is still ours; made longer once a third of it is over. One statement at most.

        One that has ended is made longer, too, unless it has gone to another."""
        now = time.monotonic()
        if now - self.renewed_at < self.seconds / 3:
            return True
        if _count(_RENEW, self.seconds, self.name, self.owner) != 1:
            return False
        self.renewed_at = now
        return True


@contextmanager
def turn(name: str, *, seconds: float) -> Iterator[Lease | None]:
    """Hold the turn of this name for the block, outside of any transaction; None, and at once,
    while it is another's. Whoever dies with it keeps it until `seconds` after they last kept it."""
    lease = Lease(name, lease_owner(), seconds, time.monotonic())
    is_ours = _count(_TAKE, name, lease.owner, seconds) == 1
    try:
        yield lease if is_ours else None
    finally:
        if is_ours:
            with suppress(Error):  # it ends by itself
                _count(_LEAVE, name, lease.owner)


def _count(statement: str, *parameters: Any) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        count: int = cursor.rowcount
        return count

"""A database that is away, or a lock that somebody holds: neither is the fault of the work."""

import time
from collections.abc import Callable
from typing import TypeVar

from django.db import Error, InterfaceError, OperationalError, connection

T = TypeVar("T")

# Connection exceptions; a server that shuts down, crashed or is not up yet; one that is short of
# disk, memory or room for locks.
_AWAY = ("08", "57P", "53")
# The time to wait for a lock is over, or two waited for each other.
_LOCKED = ("55P03", "40P01")

_PATIENCE_SECONDS = 30.0
_LONGEST_PAUSE = 1.0


def is_outage(error: BaseException) -> bool:
    """Whether the database went away or cannot work, so that what failed proves nothing about the
    work."""
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    code = _code(error)
    # Without a code the server said nothing: connection refused, closed, reset.
    return code is None or code.startswith(_AWAY)


def is_locked_out(error: BaseException) -> bool:
    """Whether somebody else holds what the work needs, and has for long."""
    return _code(error) in _LOCKED


def _code(error: BaseException) -> str | None:
    """The SQLSTATE that the server gave."""
    return getattr(error.__cause__, "sqlstate", None)


def insist(work: Callable[[], T], *, meanwhile: Callable[[], object] | None = None) -> T:
    """Run `work` until the database is there to do it, for half a minute: a restart is over by
    then, and a shutdown does not wait longer. `meanwhile` is called once it turns out to be away.

    The work may be run again after a commit whose answer was lost, so it has to be idempotent.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    pause = 0.1
    while True:
        try:
            return work()
        except Error as error:
            if not is_outage(error) or time.monotonic() > deadline:
                raise
            connection.close()
            if meanwhile is not None:
                meanwhile()
                meanwhile = None
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)

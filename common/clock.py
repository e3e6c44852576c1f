"""The one place where time is read.

Leases and due times compare against the database's clock (`django.db.models.functions.Now`);
this clock is for values that are only shown or handed on.
"""

from datetime import UTC, datetime


def now() -> datetime:
    """The current time, zone-aware, UTC."""
    return datetime.now(UTC)


def from_milliseconds(timestamp: int) -> datetime:
    """A Unix time in milliseconds as UTC; raises `ValueError` outside the years 1970 to 9999."""
    if not 0 <= timestamp < 253_402_300_800_000:
        raise ValueError("not a Unix time in milliseconds between 1970 and 9999")
    return datetime.fromtimestamp(timestamp / 1000, UTC)


def to_milliseconds(moment: datetime) -> int:
    """The inverse of `from_milliseconds`, sub-millisecond digits cut off."""
    return int(moment.timestamp() * 1000)

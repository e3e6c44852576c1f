"""The one place where time is read.

Leases and due times compare against the database's clock (`django.db.models.functions.Now`);
this clock is for values that are only shown or handed on.
"""

import re
from datetime import UTC, datetime, timedelta

_ISO_8601 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ]((?:[01]\d|2[0-3]):[0-5]\d)"
    r"(?::([0-5]\d|60)(?:[.,](\d+))?)?([Zz]|[+-]\d\d:?\d\d)?",
    re.ASCII,
)
_FARTHEST_ZONE = timedelta(hours=14)


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


def from_iso8601(text: str) -> datetime:
    """A date and time of day in ISO 8601 as UTC; raises `ValueError` for anything else.

    The timestamps of RFC 3339, read generously: a space or `t` instead of `T`, a comma in the
    fraction, no seconds, `+0530`. Without a zone it is UTC; zones reach to ±14:00. A fraction is
    cut off at microseconds. The leap second 23:59:60 UTC counts as 23:59:59. Refused: a date
    without a time, week dates (2026-W47-7), ordinal dates, digits without dashes and colons,
    24:00, and what is before 1970 or after 9999 in UTC.
    """
    match = _ISO_8601.fullmatch(text)
    if match is None:
        raise ValueError("not a date and time like 2026-11-22T04:09:24.454Z")
    day, minute, second, fraction, zone = match.groups()
    is_leap = second == "60"
    seconds = "59" if is_leap else second or "00"
    digits = (fraction or "")[:6].ljust(6, "0")
    try:
        local = datetime.fromisoformat(f"{day}T{minute}:{seconds}.{digits}{zone or 'Z'}".upper())
        moment = local.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("not a date, a zone or a year that exists") from None
    if abs(local.utcoffset() or timedelta()) > _FARTHEST_ZONE:
        raise ValueError("a zone is at most 14 hours away from UTC")
    if is_leap and (moment.hour, moment.minute) != (23, 59):
        raise ValueError("a leap second is at 23:59:60 UTC")
    if moment.year < 1970:
        raise ValueError("before 1970")
    return moment

"""One small document from a host we have chosen: no redirect, a limit on size, and a deadline."""

from webhooks.adapters import CannotVerify
from webhooks.exchange import exchange
from webhooks.guard import Denied, Unreachable

_DEADLINE = 5.0
_MOST_BYTES = 65_536


class Absent(CannotVerify):
    """The host says that it has no such document."""


def fetch(url: str) -> bytes:
    """The body of a `200`; raises `Absent` for a 4xx, `CannotVerify` for all else.

    Takes some seconds at most. The caller vouches for the host, the guard for where it leads.
    """
    try:
        answer = exchange("GET", url, seconds=_DEADLINE, most_bytes=_MOST_BYTES)
    except (Denied, Unreachable) as error:
        raise CannotVerify(f"fetching failed: {error}") from None
    if answer.status != 200:
        is_absent = 400 <= answer.status < 500
        raise (Absent if is_absent else CannotVerify)(f"fetching failed: status {answer.status}")
    if not answer.is_whole:
        raise CannotVerify("fetching failed: too large or too slow")
    return answer.body

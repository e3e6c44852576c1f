"""One small document from a host we have chosen: no redirect, a limit on size, and a deadline."""

import time

import requests
from urllib3.exceptions import HTTPError

from webhooks.adapters import CannotVerify

_CHUNK = 4_096
# Seconds for each step, and for all of them: a server that drips is not waited for.
_STEP = 3.0
_DEADLINE = 5.0
_MOST_BYTES = 65_536


class Absent(CannotVerify):
    """The host says that it has no such document."""


def fetch(url: str) -> bytes:
    """The body of a `200`; raises `Absent` for a 4xx, `CannotVerify` for all else.

    Takes some seconds at most. TLS certificates are checked, proxies taken from the environment;
    the caller vouches for the host.
    """
    deadline = time.monotonic() + _DEADLINE
    try:
        with (
            requests.Session() as session,
            session.get(url, timeout=_STEP, allow_redirects=False, stream=True) as response,
        ):
            return _read(response, deadline)
    except (HTTPError, OSError) as error:  # requests' own are OSErrors
        # Without its text, which quotes the URL and in it perhaps a token.
        raise CannotVerify(f"fetching failed: {type(error).__name__}") from None


def _read(response: requests.Response, deadline: float) -> bytes:
    status = response.status_code
    if status != requests.codes.ok:
        is_absent = 400 <= status < 500
        raise (Absent if is_absent else CannotVerify)(f"fetching failed: status {status}")
    parts, size = [], 0
    # Not `iter_content`, which waits until a chunk is full.
    while chunk := response.raw.read1(_CHUNK, decode_content=True):
        parts.append(chunk)
        size += len(chunk)
        if size > _MOST_BYTES or time.monotonic() > deadline:
            raise CannotVerify("fetching failed: too large or too slow")
    return b"".join(parts)

"""One small document from a host we have chosen: no redirect, a limit on size, and a deadline."""

import time

import requests

from webhooks.adapters import CannotVerify

_CHUNK = 4_096
# Seconds for each step, and for all of them: a server that drips is not waited for.
_STEP = 3.0
_DEADLINE = 5.0
_MOST_BYTES = 65_536


class Absent(CannotVerify):
    """The host answered, and not with the document."""


def fetch(url: str) -> bytes:
    """The body of a `200`; raises `Absent` for another answer, `CannotVerify` for none.

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
    except requests.RequestException as error:
        # Without its text, which quotes the URL and in it perhaps a token.
        raise CannotVerify(f"fetching failed: {type(error).__name__}") from None


def _read(response: requests.Response, deadline: float) -> bytes:
    if response.status_code != requests.codes.ok:
        raise Absent(f"fetching failed: status {response.status_code}")
    parts, size = [], 0
    for chunk in response.iter_content(_CHUNK):
        parts.append(chunk)
        size += len(chunk)
        if size > _MOST_BYTES or time.monotonic() > deadline:
            raise Absent("fetching failed: too large or too slow")
    return b"".join(parts)

"""Questions to the web process, and when its answer means that the worker is stuck."""

import http.client
import json
from urllib.parse import urlsplit

_ANSWER_SECONDS = 2.0
STUCK_SECONDS = 60.0


def get(url: str) -> tuple[int, bytes] | None:
    """Return status and body, or None without an answer in time. No proxy is ever asked."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(
        parts.hostname or "", parts.port, timeout=_ANSWER_SECONDS
    )
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def is_ready(url: str) -> bool:
    """Whether the application at `url` says that it can serve."""
    answer = get(f"{url}/readyz")
    return answer is not None and answer[0] == 200


def worker_idle_seconds(url: str) -> float | None:
    """Return for how long no drain ran, or None when that is not known."""
    answer = get(f"{url}/healthz")
    if answer is None:
        return None
    try:
        idle = json.loads(answer[1])["worker_idle_seconds"]
    except (ValueError, KeyError, TypeError):
        return None
    return float(idle) if isinstance(idle, int | float) else None


def is_stuck(idle: float, *, worker_uptime: float, broker_uptime: float) -> bool:
    """Whether the worker had a broker and a minute, and did nothing with them.

    A Celery worker can stop consuming after it reconnected to Redis, without a word. Beat rings
    every few seconds, so a healthy worker is never idle for long.
    """
    return min(idle, worker_uptime, broker_uptime) > STUCK_SECONDS

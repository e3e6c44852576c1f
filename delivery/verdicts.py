"""What a hand-over's outcome means. Pure: exceptions and status codes in, `Verdict` out.

The table is the heart of "at most once": only an outcome that *proves* the provider did not take
the message may be tried again. Whatever is not understood is `UNKNOWN`.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

import requests
from anymail.exceptions import (
    AnymailError,
    AnymailRecipientsRefused,
    AnymailRequestsAPIError,
)
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError

MIN_RETRY_AFTER = 1.0
MAX_RETRY_AFTER = 3_600.0


class Outcome(StrEnum):
    """The four things a hand-over can mean."""

    ACCEPTED = "accepted"
    RETRY = "retry"
    PERMANENT = "permanent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one hand-over of one message.

    `retry_after` is in seconds and only ever set with RETRY. `spares_attempt` says that the fault
    is the provider's or the network's, so that an outage does not use up a message's attempts.
    """

    outcome: Outcome
    detail: str = ""
    esp_id: str = ""
    retry_after: float | None = None
    spares_attempt: bool = False


class HandoverError(Exception):
    """Raised by a backend of ours that already knows the verdict."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.detail)
        self.verdict = verdict


def verdict_of(error: BaseException) -> Verdict:
    """The verdict for whatever a backend's `send_messages` or `open` raised."""
    if isinstance(error, HandoverError):
        return error.verdict
    if isinstance(error, AnymailRequestsAPIError):
        return _of_api_error(error)
    if isinstance(error, AnymailRecipientsRefused):
        return Verdict(Outcome.PERMANENT, "the provider refused the recipient")
    if isinstance(error, AnymailError | ValueError):
        # Raised while the request is being built: bad header, bad address, unsupported feature.
        return Verdict(Outcome.PERMANENT, f"cannot be expressed: {type(error).__name__}")
    return Verdict(Outcome.UNKNOWN, type(error).__name__)


def of_connection(error: BaseException) -> Verdict:
    """The verdict when no connection came about: nothing was handed over."""
    return Verdict(Outcome.RETRY, f"no connection: {type(error).__name__}", spares_attempt=True)


def of_smtp_reply(code: int, text: bytes) -> Verdict:
    """The verdict for a server's negative answer (4xx or 5xx) to whatever command."""
    detail = f"SMTP {code} {text.decode('ascii', 'replace')}"[:300]
    if code >= 500:
        return Verdict(Outcome.PERMANENT, detail)
    # 421: the server is about to close, which is not the message's fault.
    return Verdict(Outcome.RETRY, detail, spares_attempt=code == 421)


def of_smtp_fault(error: BaseException, *, in_doubt: bool) -> Verdict:
    """The verdict when there was no answer, or none that can be read; `in_doubt` says whether the
    message's text was on its way.

    Up to the reply to DATA the server cannot have taken the message. Between the text's first
    byte and the reply to it, it may have (RFC 1047).
    """
    if in_doubt:
        return Verdict(Outcome.UNKNOWN, f"connection lost after the text: {type(error).__name__}")
    return of_connection(error)


def of_status(status: int, headers: Mapping[str, str]) -> Verdict:
    """The verdict for an HTTP answer of a provider without idempotency keys."""
    if 200 <= status < 300:
        return Verdict(Outcome.ACCEPTED, f"HTTP {status}")
    wait = retry_after(headers.get("Retry-After"))
    detail = f"HTTP {status}"
    if status == 429:
        return Verdict(Outcome.RETRY, detail, retry_after=wait or 1.0, spares_attempt=True)
    if status in (401, 402, 403):
        return Verdict(Outcome.RETRY, detail, retry_after=60.0, spares_attempt=True)
    if status == 503 and wait is not None:
        return Verdict(Outcome.RETRY, detail, retry_after=wait)
    if status == 425:
        return Verdict(Outcome.RETRY, detail)
    if status in (408, *range(500, 600)):
        return Verdict(Outcome.UNKNOWN, detail)
    return Verdict(Outcome.PERMANENT, detail)


def retry_after(header: str | None) -> float | None:
    """Seconds to wait by a Retry-After header (seconds or HTTP date), clamped; None if absent.

    An unreadable or negative value counts as the shortest wait, not as an error.
    """
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            moment = parsedate_to_datetime(header)
        except ValueError:
            return MIN_RETRY_AFTER
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    # `not >=` rather than `<`: NaN, which float() reads without complaint, compares false.
    return min(seconds, MAX_RETRY_AFTER) if seconds >= MIN_RETRY_AFTER else MIN_RETRY_AFTER


def _of_api_error(error: AnymailRequestsAPIError) -> Verdict:
    if error.response is None:
        return _of_request_failure(error)
    # Anymail raises on a 2xx whose body it cannot read; the provider took the mail all the same.
    return of_status(error.response.status_code, error.response.headers)


def _of_request_failure(error: AnymailRequestsAPIError) -> Verdict:
    cause = error.__cause__ or error.__context__
    if isinstance(cause, requests.exceptions.SSLError | requests.exceptions.ConnectTimeout):
        return of_connection(cause)
    if isinstance(cause, requests.exceptions.ConnectionError):
        inner = cause.args[0] if cause.args else None
        reason = inner.reason if isinstance(inner, MaxRetryError) else inner
        if isinstance(reason, NewConnectionError | ConnectTimeoutError | ssl.SSLError):
            return of_connection(reason)
    # Read timeouts, resets, closed keep-alive connections: the request may have been read.
    return Verdict(Outcome.UNKNOWN, f"no answer: {type(cause or error).__name__}")

"""What a hand-over's outcome means. Pure: exceptions and status codes in, `Verdict` out.

The table is the heart of "at most once": only an outcome that *proves* the provider did not take
the message may be tried again. Whatever is not understood is `UNKNOWN`.
"""

import smtplib
import socket
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
    if isinstance(error, smtplib.SMTPException | OSError):
        return of_smtp(error, body_written=True)
    if isinstance(error, AnymailError | ValueError):
        # Raised while the request is being built: bad header, bad address, unsupported feature.
        return Verdict(Outcome.PERMANENT, f"cannot be expressed: {type(error).__name__}")
    return Verdict(Outcome.UNKNOWN, type(error).__name__)


def of_connection(error: BaseException) -> Verdict:
    """The verdict when no connection came about: nothing was handed over."""
    return Verdict(Outcome.RETRY, f"no connection: {type(error).__name__}", spares_attempt=True)


def of_smtp(error: BaseException, *, body_written: bool) -> Verdict:
    """The verdict for an SMTP fault; `body_written` says whether the message text was on its way.

    Up to the reply to DATA the server cannot have taken the message. Between the final dot and
    the reply it may have (RFC 1047).
    """
    code, text = _smtp_reply(error)
    if code is not None and 400 <= code < 500:
        return Verdict(Outcome.RETRY, text, spares_attempt=code == 421)
    if code is not None and code >= 500:
        return Verdict(Outcome.PERMANENT, text)
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return Verdict(Outcome.PERMANENT, "the server lacks an extension the message needs")
    if body_written:
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


def _smtp_reply(error: BaseException) -> tuple[int | None, str]:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        for code, text in error.recipients.values():
            return code, _reply_text(code, text)
    if isinstance(error, smtplib.SMTPResponseException) and isinstance(error.smtp_code, int):
        # smtplib reports a line it could not parse as code -1.
        code = error.smtp_code
        return (code, _reply_text(code, error.smtp_error)) if code >= 400 else (None, "")
    if isinstance(error, socket.gaierror):
        return None, "name not resolved"
    return None, ""


def _reply_text(code: int, text: bytes | str) -> str:
    if isinstance(text, bytes):
        text = text.decode("ascii", "replace")
    return f"SMTP {code} {text}"[:300]

"""The verdict table, row by row."""

import smtplib
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from delivery.verdicts import (
    Outcome,
    of_connection,
    of_smtp_fault,
    of_smtp_reply,
    of_status,
    retry_after,
    verdict_of,
)


@pytest.mark.parametrize(
    ("status", "headers", "outcome", "spared"),
    [
        (200, {}, Outcome.ACCEPTED, False),
        (202, {}, Outcome.ACCEPTED, False),
        (400, {}, Outcome.PERMANENT, False),
        (401, {}, Outcome.RETRY, True),
        (402, {}, Outcome.RETRY, True),
        (403, {}, Outcome.RETRY, True),
        (408, {}, Outcome.UNKNOWN, False),
        (413, {}, Outcome.PERMANENT, False),
        (422, {}, Outcome.PERMANENT, False),
        (425, {}, Outcome.RETRY, False),
        (429, {}, Outcome.RETRY, True),
        (429, {"Retry-After": "7"}, Outcome.RETRY, True),
        (500, {}, Outcome.UNKNOWN, False),
        (502, {}, Outcome.UNKNOWN, False),
        (503, {}, Outcome.UNKNOWN, False),
        (503, {"Retry-After": "7"}, Outcome.RETRY, False),
        (504, {}, Outcome.UNKNOWN, False),
    ],
)
def test_http_status(status: int, headers: dict[str, str], outcome: Outcome, spared: bool) -> None:
    verdict = of_status(status, headers)
    assert (verdict.outcome, verdict.spares_attempt) == (outcome, spared)
    if "Retry-After" in headers:
        assert verdict.retry_after == 7


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("5", 5),
        ("0", 1),
        ("-3", 1),
        ("99999999", 3600),
        ("nan", 1),
        ("soon", 1),
        ("Fri, 99 Foo 2026 99:99:99 GMT", 1),
    ],
)
def test_retry_after_is_clamped(header: str | None, seconds: float | None) -> None:
    assert retry_after(header) == seconds


def test_retry_after_as_a_date() -> None:
    later = datetime.now(UTC) + timedelta(seconds=120)
    assert retry_after(format_datetime(later, usegmt=True)) == pytest.approx(120, abs=3)


@pytest.mark.parametrize(
    ("code", "outcome", "spared"),
    [
        (421, Outcome.RETRY, True),
        (450, Outcome.RETRY, False),
        (451, Outcome.RETRY, False),
        (452, Outcome.RETRY, False),
        (550, Outcome.PERMANENT, False),
        (554, Outcome.PERMANENT, False),
    ],
)
def test_smtp_reply(code: int, outcome: Outcome, spared: bool) -> None:
    verdict = of_smtp_reply(code, b"because")
    assert (verdict.outcome, verdict.spares_attempt) == (outcome, spared)
    assert verdict.detail == f"SMTP {code} because"


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        TimeoutError(),
        ssl.SSLError(),
        smtplib.SMTPServerDisconnected("gone"),
        smtplib.SMTPResponseException(500, b"Line too long."),
        smtplib.SMTPException("an answer out of turn"),
    ],
)
def test_smtp_fault_is_in_doubt_once_the_text_is_on_its_way(error: Exception) -> None:
    assert of_smtp_fault(error, in_doubt=True).outcome == Outcome.UNKNOWN
    assert of_smtp_fault(error, in_doubt=False).outcome == Outcome.RETRY


def test_an_outage_spares_attempts() -> None:
    assert of_connection(ConnectionRefusedError()).spares_attempt
    assert of_smtp_fault(smtplib.SMTPServerDisconnected(), in_doubt=False).spares_attempt


def test_what_is_not_understood_is_unknown() -> None:
    assert verdict_of(RuntimeError("?")).outcome == Outcome.UNKNOWN

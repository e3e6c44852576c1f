"""The verdict table, row by row."""

import smtplib
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from delivery.verdicts import Outcome, of_connection, of_smtp, of_status, retry_after, verdict_of


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
    ("error", "written", "outcome"),
    [
        (ConnectionRefusedError(), False, Outcome.RETRY),
        (TimeoutError(), False, Outcome.RETRY),
        (ssl.SSLError(), False, Outcome.RETRY),
        (smtplib.SMTPServerDisconnected("gone"), False, Outcome.RETRY),
        (smtplib.SMTPServerDisconnected("gone"), True, Outcome.UNKNOWN),
        (TimeoutError(), True, Outcome.UNKNOWN),
        (ConnectionResetError(), True, Outcome.UNKNOWN),
        (smtplib.SMTPConnectError(421, b"busy"), False, Outcome.RETRY),
        (smtplib.SMTPSenderRefused(451, b"later", "a@b.c"), False, Outcome.RETRY),
        (smtplib.SMTPSenderRefused(550, b"no", "a@b.c"), False, Outcome.PERMANENT),
        (smtplib.SMTPRecipientsRefused({"a@b.c": (450, b"greylisted")}), False, Outcome.RETRY),
        (smtplib.SMTPRecipientsRefused({"a@b.c": (550, b"unknown")}), False, Outcome.PERMANENT),
        (smtplib.SMTPDataError(452, b"full"), True, Outcome.RETRY),
        (smtplib.SMTPDataError(554, b"spam"), True, Outcome.PERMANENT),
        (smtplib.SMTPDataError(-1, b"garbage"), True, Outcome.UNKNOWN),
        (smtplib.SMTPNotSupportedError("SMTPUTF8"), False, Outcome.PERMANENT),
    ],
)
def test_smtp_fault(error: Exception, written: bool, outcome: Outcome) -> None:
    assert of_smtp(error, body_written=written).outcome == outcome


def test_an_outage_spares_attempts() -> None:
    assert of_connection(ConnectionRefusedError()).spares_attempt
    assert of_smtp(smtplib.SMTPServerDisconnected(), body_written=False).spares_attempt
    refused = smtplib.SMTPRecipientsRefused({"a@b.c": (450, b"greylisted")})
    assert not of_smtp(refused, body_written=False).spares_attempt


def test_what_is_not_understood_is_unknown() -> None:
    assert verdict_of(RuntimeError("?")).outcome == Outcome.UNKNOWN

"""The verdict table, row by row."""

import json
import smtplib
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from anymail.exceptions import AnymailSerializationError

from delivery.bounces import BounceClass
from delivery.calls import shown
from delivery.providers import TRAITS, Meaning, Traits
from delivery.routes import Route
from delivery.verdicts import (
    Blame,
    HandoverError,
    Outcome,
    Phase,
    Verdict,
    of_answer,
    of_connection,
    of_smtp_fault,
    of_smtp_reply,
    retry_after,
    verdict_of,
)

PLAIN = Traits("some.backend")
SEVEN = {"Retry-After": "7"}


@pytest.mark.parametrize(
    ("status", "headers", "outcome", "blame", "wait"),
    [
        (200, {}, Outcome.ACCEPTED, Blame.MESSAGE, None),
        (202, {}, Outcome.ACCEPTED, Blame.MESSAGE, None),
        (301, {}, Outcome.RETRY, Blame.ROUTE, 60),
        (307, {}, Outcome.RETRY, Blame.ROUTE, 60),
        (400, {}, Outcome.PERMANENT, Blame.MESSAGE, None),
        (401, {}, Outcome.RETRY, Blame.ROUTE, 60),
        (402, {}, Outcome.RETRY, Blame.ROUTE, 60),
        (403, {}, Outcome.RETRY, Blame.ROUTE, 60),
        (403, SEVEN, Outcome.RETRY, Blame.ROUTE, 7),
        (404, {}, Outcome.PERMANENT, Blame.MESSAGE, None),
        (408, {}, Outcome.UNKNOWN, Blame.MESSAGE, None),
        (413, {}, Outcome.PERMANENT, Blame.MESSAGE, None),
        (422, {}, Outcome.PERMANENT, Blame.MESSAGE, None),
        (425, {}, Outcome.RETRY, Blame.MESSAGE, None),
        (429, {}, Outcome.RETRY, Blame.PACE, 1),
        (429, SEVEN, Outcome.RETRY, Blame.PACE, 7),
        (500, {}, Outcome.UNKNOWN, Blame.MESSAGE, None),
        (502, {}, Outcome.UNKNOWN, Blame.MESSAGE, None),
        (503, {}, Outcome.UNKNOWN, Blame.MESSAGE, None),
        (503, SEVEN, Outcome.RETRY, Blame.PACE, 7),
        (504, {}, Outcome.UNKNOWN, Blame.MESSAGE, None),
    ],
)
def test_http_status(
    status: int, headers: dict[str, str], outcome: Outcome, blame: Blame, wait: float | None
) -> None:
    verdict = of_answer(status, headers, "", PLAIN)
    assert (verdict.outcome, verdict.blame, verdict.retry_after) == (outcome, blame, wait)


def body_with(code: str, traits: Traits) -> str:
    """A JSON body with this code where the provider puts it."""
    found: object = int(code) if code.isdigit() else code
    for step in reversed(traits.code_at):
        found = [found] if isinstance(step, int) else {step: found}
    return json.dumps(found)


ROWS = [
    (kind, code, answer) for kind, traits in TRAITS.items() for code, answer in traits.codes.items()
]


@pytest.mark.parametrize(("kind", "code", "answer"), ROWS, ids=[f"{k}-{c}" for k, c, _ in ROWS])
@pytest.mark.parametrize("status", [200, 400, 500])
def test_code_of_a_provider_counts_more_than_its_status(
    kind: str, code: str, answer: object, status: int
) -> None:
    expected = {
        Meaning.REFUSED: (Outcome.PERMANENT, Blame.MESSAGE),
        Meaning.LATER: (Outcome.RETRY, Blame.MESSAGE),
        Meaning.SLOWER: (Outcome.RETRY, Blame.PACE),
        Meaning.CLOSED: (Outcome.RETRY, Blame.ROUTE),
        Meaning.SENDER: (Outcome.RETRY, Blame.SENDER),
        Meaning.RECIPIENT: (Outcome.PERMANENT, Blame.MESSAGE),
        Meaning.DOUBT: (Outcome.UNKNOWN, Blame.MESSAGE),
    }
    traits = TRAITS[kind]
    verdict = of_answer(status, {}, body_with(code, traits), traits)
    assert (verdict.outcome, verdict.blame) == expected[traits.codes[code].meaning]
    assert code in verdict.detail


@pytest.mark.parametrize("kind", [kind for kind, traits in TRAITS.items() if traits.code_at])
def test_success_with_an_error_nobody_has_listed_is_a_doubt(kind: str) -> None:
    verdict = of_answer(200, {}, body_with("SomethingNew", TRAITS[kind]), TRAITS[kind])
    assert verdict.outcome == Outcome.UNKNOWN
    assert "SomethingNew" in verdict.detail


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ('{"status": "success"}', Outcome.ACCEPTED),
        ('{"status": "success", "data": {"messages": {}}}', Outcome.ACCEPTED),
        ('{"status": "error", "data": {"code": "ValidationError"}}', Outcome.PERMANENT),
        ('{"status": "error", "data": {"code": "SomethingNew"}}', Outcome.UNKNOWN),
        ('{"status": "error", "data": {"message": "?"}}', Outcome.UNKNOWN),
        ('{"status": "error"}', Outcome.UNKNOWN),
        ('{"status": "parameter-error", "data": {"message": "?"}}', Outcome.UNKNOWN),
        ('{"status": null}', Outcome.UNKNOWN),
        ("{}", Outcome.UNKNOWN),
        ("[]", Outcome.UNKNOWN),
        ("", Outcome.UNKNOWN),
        ('{"status": "success", "da', Outcome.UNKNOWN),
        ("<html>fine</html>", Outcome.UNKNOWN),
        ('{"status": "success", "data": "' + "x" * 100_000 + '"}', Outcome.UNKNOWN),
    ],
)
def test_who_says_200_to_everything_has_taken_what_its_body_says(
    body: str, outcome: Outcome
) -> None:
    assert of_answer(200, {}, body, TRAITS["postal"]).outcome == outcome


@pytest.mark.parametrize("body", ['{"ErrorCode": 0}', '{"ErrorCode": null}', "{}", "", "{"])
def test_success_that_names_no_error_is_success(body: str) -> None:
    assert of_answer(200, {}, body, TRAITS["postmark"]).outcome == Outcome.ACCEPTED


@pytest.mark.parametrize(
    "told",
    [
        "ThrottlingException",
        "ThrottlingException:http://internal.amazon.com/coral/com.amazonaws.ses/",
        "com.amazonaws.ses#ThrottlingException",
        "com.amazonaws.ses#ThrottlingException:http://internal.amazon.com/coral/#x",
    ],
)
def test_code_in_a_header_has_a_name_before_it_and_a_place_behind(told: str) -> None:
    verdict = of_answer(400, {"x-amzn-ErrorType": told}, "{}", TRAITS["ses"])
    assert (verdict.outcome, verdict.blame) == (Outcome.RETRY, Blame.PACE)


@pytest.mark.parametrize(
    "code", ["IncompleteSignature", "InvalidAction", "NotAuthorized", "RequestExpired"]
)
def test_what_amazon_has_against_our_key_or_clock_is_no_mails_fault(code: str) -> None:
    """All of them come with 400."""
    verdict = of_answer(400, {"x-amzn-ErrorType": code}, "{}", TRAITS["ses"])
    assert (verdict.outcome, verdict.blame) == (Outcome.RETRY, Blame.ROUTE)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html>",
        "[]",
        "null",
        '{"name": null}',
        '{"name": ["rate"]}',
        "[" * 90_000,
        "9" * 5_000,
    ],
)
def test_body_that_holds_no_code_leaves_it_to_the_status(body: str) -> None:
    assert of_answer(422, {}, body, TRAITS["resend"]).outcome == Outcome.PERMANENT
    assert of_answer(500, {}, body, TRAITS["resend"]).outcome == Outcome.UNKNOWN


def test_conflict_about_a_key_is_a_doubt_although_its_body_is_missing() -> None:
    assert of_answer(409, {}, "", TRAITS["resend"]).outcome == Outcome.UNKNOWN
    assert of_answer(409, {}, "", TRAITS["postmark"]).outcome == Outcome.PERMANENT


def test_what_is_stored_of_an_answer_is_one_short_line_without_addresses() -> None:
    body = "no such user\n<ada@example.com>\x00\x1b[31m " + "x" * 5_000
    detail = shown(of_answer(400, {}, body, PLAIN), Route(PLAIN)).detail
    assert "ada@" not in detail
    assert detail.isprintable()
    assert len(detail) <= 300
    assert "no such user" in detail


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
        ("inf", 3600),
        ("soon", 1),
        ("Fri, 99 Foo 2026 99:99:99 GMT", 1),
        ("Thu, 31 Dec 2026 99999999999999999999:59:59 GMT", 1.0),
        ("Thu, 31 Dec 2026 23:59:59 +99999999999999999999", 1.0),
    ],
)
def test_retry_after_is_clamped(header: str | None, seconds: float | None) -> None:
    assert retry_after(header) == seconds


def test_retry_after_as_a_date() -> None:
    later = datetime.now(UTC) + timedelta(seconds=120)
    assert retry_after(format_datetime(later, usegmt=True)) == pytest.approx(120, abs=3)


@pytest.mark.parametrize(
    ("code", "outcome", "blame"),
    [
        (421, Outcome.RETRY, Blame.PACE),
        (450, Outcome.RETRY, Blame.MESSAGE),
        (451, Outcome.RETRY, Blame.MESSAGE),
        (452, Outcome.RETRY, Blame.MESSAGE),
        (550, Outcome.PERMANENT, Blame.MESSAGE),
        (554, Outcome.PERMANENT, Blame.MESSAGE),
    ],
)
def test_smtp_reply(code: int, outcome: Outcome, blame: Blame) -> None:
    verdict = of_smtp_reply(code, b"because of <ada@example.com>", Phase.TEXT)
    verdict = shown(verdict, Route(PLAIN))
    assert (verdict.outcome, verdict.blame) == (outcome, blame)
    assert verdict.detail == f"SMTP {code} because of <***@***>"


@pytest.mark.parametrize(
    ("code", "blame", "wait"),
    [
        (421, Blame.PACE, None),
        (450, Blame.SENDER, 60),
        (550, Blame.SENDER, 300),
        (525, Blame.ROUTE, 60),
        (535, Blame.ROUTE, 60),
    ],
)
def test_smtp_reply_to_mail_is_about_us(code: int, blame: Blame, wait: float | None) -> None:
    verdict = of_smtp_reply(code, b"5.1.1 no such user", Phase.MAIL)
    assert (verdict.outcome, verdict.blame, verdict.retry_after) == (Outcome.RETRY, blame, wait)
    assert verdict.bounce is None


@pytest.mark.parametrize(
    ("phase", "bounce"),
    [
        (Phase.RCPT, BounceClass.HARD),
        (Phase.DATA, BounceClass.SOFT),
        (Phase.TEXT, BounceClass.HARD),
    ],
)
def test_smtp_reply_condemns_an_address_only_where_it_is_about_one(
    phase: Phase, bounce: BounceClass
) -> None:
    assert of_smtp_reply(550, b"5.1.1 no such user", phase).bounce == bounce


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
    assert verdict_of(RuntimeError("?"), PLAIN).outcome == Outcome.UNKNOWN
    assert verdict_of(KeyError("?"), PLAIN).outcome == Outcome.UNKNOWN


def test_verdict_a_backend_brings_along_stands() -> None:
    verdict = Verdict(Outcome.PERMANENT, "because")
    assert verdict_of(HandoverError(verdict), PLAIN) is verdict


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ("", Outcome.PERMANENT),
        ("<html>no", Outcome.PERMANENT),
        ('{"ErrorCode": 999}', Outcome.PERMANENT),
        ('{"Error', Outcome.RETRY),  # of ErrorCode 100: in maintenance
        ("{" * 50_000, Outcome.RETRY),
    ],
)
def test_refusal_whose_reason_is_cut_off_is_tried_again(body: str, outcome: Outcome) -> None:
    verdict = of_answer(422, {}, body, TRAITS["postmark"])
    assert (verdict.outcome, verdict.spares_attempt) == (outcome, False)


@pytest.mark.parametrize("error", [ValueError("?"), AnymailSerializationError("?")])
def test_mail_that_cannot_be_expressed_is_refused(error: Exception) -> None:
    verdict = verdict_of(error, PLAIN, posted=False)
    assert (verdict.outcome, verdict.own_fault) == (Outcome.PERMANENT, True)
    assert verdict_of(error, PLAIN).outcome == Outcome.UNKNOWN


@pytest.mark.parametrize("error", [KeyError("to"), MemoryError()])
def test_call_that_cannot_be_made_for_another_reason_is_tried_again(error: Exception) -> None:
    verdict = verdict_of(error, PLAIN, posted=False)
    assert (verdict.outcome, verdict.blame) == (Outcome.RETRY, Blame.CALL)
    assert not verdict.spares_attempt
    assert verdict.is_plain_refusal
    assert verdict_of(error, PLAIN).outcome == Outcome.UNKNOWN

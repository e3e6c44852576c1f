"""What an answer means: taken, try again and when, or gone."""

from datetime import timedelta
from email.message import Message
from email.utils import format_datetime

import pytest

from common.clock import now
from webhooks.exchange import Answer
from webhooks.guard import Denied, Unreachable
from webhooks.outgoing.verdicts import LONGEST_PAUSE, SCHEDULE, judge
from webhooks.states import OutgoingState


def answer(status: int, *, retry_after: str | None = None, body: bytes = b"") -> Answer:
    headers = Message()
    if retry_after is not None:
        headers["Retry-After"] = retry_after
    return Answer(status, headers, body, True)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_takes_it(status: int) -> None:
    verdict = judge(1, answer(status))
    assert (verdict.state, verdict.status) == (OutgoingState.DELIVERED, status)


@pytest.mark.parametrize(
    "outcome",
    [
        *(answer(status) for status in (100, 301, 302, 307, 400, 401, 404, 408, 422, 500, 502)),
        Unreachable("timeout"),
        Denied("The host leads inside."),
    ],
    ids=lambda outcome: str(getattr(outcome, "status", outcome)),
)
def test_everything_else_is_tried_again_by_the_schedule(
    outcome: Answer | Unreachable | Denied,
) -> None:
    for attempt, usual in enumerate(SCHEDULE, start=1):
        verdict = judge(attempt, outcome)
        assert verdict.state == OutgoingState.PENDING
        assert 0.9 * usual <= verdict.delay <= 1.1 * usual
        assert (verdict.pause, verdict.is_gone) == (0, False)
    assert judge(len(SCHEDULE) + 1, outcome).state == OutgoingState.DEAD


def test_schedule_is_the_recommended_one() -> None:
    hours = [2, 5, 10, 14, 20, 24]
    assert (5, 300, 1800, *(hour * 3600 for hour in hours)) == SCHEDULE


def test_delays_differ() -> None:
    assert len({judge(3, answer(500)).delay for _ in range(20)}) > 10


def test_gone_ends_it_at_once() -> None:
    verdict = judge(1, answer(410))
    assert (verdict.state, verdict.is_gone) == (OutgoingState.DEAD, True)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("text", "pause"),
    [
        ("0", 0),
        ("120", 120),
        ("99999999999999999999", LONGEST_PAUSE),
        ("-5", 0),
        ("soon", 0),
        ("1.5", 0),
        ("²", 0),
        ("", 0),
        ("Fri, 31 Feb 2026 25:00:00 GMT", 0),
        pytest.param(format_datetime(now() - timedelta(hours=1), usegmt=True), 0, id="past"),
        pytest.param(
            format_datetime(now() + timedelta(days=9), usegmt=True), LONGEST_PAUSE, id="far"
        ),
    ],
)
def test_retry_after_is_honoured_and_clamped(status: int, text: str, pause: float) -> None:
    verdict = judge(1, answer(status, retry_after=text))
    assert verdict.pause == pause
    assert verdict.delay >= max(pause, 4.5)


def test_retry_after_may_be_a_date() -> None:
    date = format_datetime(now() + timedelta(seconds=300), usegmt=True)
    assert 290 < judge(1, answer(429, retry_after=date)).pause <= 300


@pytest.mark.parametrize("status", [200, 301, 500])
def test_retry_after_of_other_answers_counts_for_nothing(status: int) -> None:
    assert judge(1, answer(status, retry_after="3000")).pause == 0


def test_excerpt_is_short_and_fit_for_the_database() -> None:
    said = judge(1, answer(500, body=b"\xff\x00<b>" + b"x" * 9_000)).answer
    assert said.startswith("\ufffd<b>xx")
    assert len(said) == 500

"""When a provider's circuit opens and closes: pure decisions."""

from datetime import UTC, datetime, timedelta

import pytest

from delivery.circuits import FAILURES, Answered, State, after
from delivery.verdicts import Blame, Outcome, Verdict, of_connection

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TAKEN = Answered(Verdict(Outcome.ACCEPTED))
REFUSED = Answered(Verdict(Outcome.PERMANENT, "no such user"))
AWAY = Answered(of_connection(ConnectionRefusedError()))
SILENT = Answered(Verdict(Outcome.UNKNOWN, "no answer"))
CLOSED = Answered(Verdict(Outcome.RETRY, "HTTP 401", retry_after=60.0, blame=Blame.ROUTE))
SLOWER = Answered(Verdict(Outcome.RETRY, "HTTP 429", retry_after=20.0, blame=Blame.PACE))


def pause(state: State) -> float | None:
    return None if state.open_until is None else (state.open_until - NOW).total_seconds()


def probed(answered: Answered) -> Answered:
    return Answered(answered.verdict, is_probe=True)


@pytest.mark.parametrize("failure", [AWAY, SILENT])
def test_five_failures_in_a_row_open_it(failure: Answered) -> None:
    assert pause(after(State(), [failure] * (FAILURES - 1), NOW)) is None
    assert pause(after(State(), [failure] * FAILURES, NOW)) == 30


@pytest.mark.parametrize("answer", [TAKEN, REFUSED])
def test_answer_in_between_breaks_the_row(answer: Answered) -> None:
    state = after(State(), [*[AWAY] * 4, answer, *[AWAY] * 4], NOW)
    assert pause(state) is None
    assert state.failures == 4


def test_account_at_fault_opens_it_at_once_for_as_long_as_it_says() -> None:
    assert pause(after(State(), [CLOSED], NOW)) == 60


def test_what_was_under_way_when_it_opened_is_the_same_outage() -> None:
    state = after(State(), [AWAY] * 40, NOW)
    assert (pause(state), state.trips) == (30, 1)


def test_each_trial_that_fails_doubles_the_pause_up_to_ten_minutes() -> None:
    state, pauses = after(State(), [AWAY] * FAILURES, NOW), []
    for _ in range(7):
        state = after(state, [probed(AWAY)], NOW)
        pauses.append(pause(state))
    assert pauses == [60, 120, 240, 480, 600, 600, 600]


@pytest.mark.parametrize("answer", [TAKEN, REFUSED])
def test_trial_that_is_answered_closes_it(answer: Answered) -> None:
    opened = after(State(), [CLOSED], NOW)
    assert after(opened, [probed(answer)], NOW) == State()


def test_pause_it_asks_for_closes_it_and_is_kept() -> None:
    state = after(after(State(), [CLOSED], NOW), [probed(SLOWER)], NOW)
    assert pause(state) is None
    assert state.slow_until == NOW + timedelta(seconds=20)
    assert after(state, [TAKEN], NOW).slow_until == state.slow_until

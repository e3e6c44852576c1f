"""When a provider's circuit opens and closes: pure decisions."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from delivery.bounces import BounceClass
from delivery.circuits import FAILURES, Answered, State, after
from delivery.connections import pool
from delivery.engine import drain
from delivery.models import Circuit, Message
from delivery.turns import REFUSALS
from delivery.verdicts import Blame, Outcome, Verdict, of_connection
from tests.delivery.fakeesp import Answer, fake_esp
from tests.factories import MessageFactory, ProviderFactory, SenderFactory

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TAKEN = Answered(Verdict(Outcome.ACCEPTED))
NO_SUCH_USER = Answered(Verdict(Outcome.PERMANENT, "no such user", bounce=BounceClass.HARD))
INACTIVE = Answered(Verdict(Outcome.PERMANENT, "HTTP 422 406", own_fault=True))
REFUSED = Answered(Verdict(Outcome.PERMANENT, "HTTP 422"))
UNVERIFIED = Answered(Verdict(Outcome.RETRY, "HTTP 422", retry_after=300.0, blame=Blame.SENDER))
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


@pytest.mark.parametrize("answer", [TAKEN, NO_SUCH_USER, INACTIVE, REFUSED, UNVERIFIED])
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


@pytest.mark.parametrize("answer", [TAKEN, NO_SUCH_USER, INACTIVE, UNVERIFIED])
def test_trial_that_is_answered_closes_it(answer: Answered) -> None:
    opened = after(State(), [CLOSED], NOW)
    assert after(opened, [probed(answer)], NOW) == State()


def test_pause_it_asks_for_closes_it_and_is_kept() -> None:
    state = after(after(State(), [CLOSED], NOW), [probed(SLOWER)], NOW)
    assert pause(state) is None
    assert state.slow_until == NOW + timedelta(seconds=20)
    assert after(state, [TAKEN], NOW).slow_until == state.slow_until


def test_flood_of_refusals_opens_it_and_only_an_answer_of_another_kind_closes_it() -> None:
    assert pause(after(State(), [REFUSED] * (REFUSALS - 1), NOW)) is None
    opened = after(State(), [REFUSED] * REFUSALS, NOW)
    assert (pause(opened), opened.trips) == (30, 1)
    assert pause(after(opened, [REFUSED] * 5, NOW)) == 30
    refused_again = after(opened, [probed(REFUSED)], NOW)
    assert (pause(refused_again), refused_again.trips) == (60, 2)
    assert after(refused_again, [probed(TAKEN)], NOW) == State()


@pytest.mark.parametrize("answer", [NO_SUCH_USER, INACTIVE])
def test_refused_addresses_are_no_flood(answer: Answered) -> None:
    assert after(State(), [answer] * 200, NOW) == State()


def test_mail_that_is_taken_in_between_ends_the_flood() -> None:
    state = after(State(), [*[REFUSED] * 19, TAKEN, *[REFUSED] * 19], NOW)
    assert (pause(state), state.refusals) == (None, 19)


def test_refusal_after_an_outage_closes_it() -> None:
    down = after(State(), [AWAY] * FAILURES, NOW)
    state = after(down, [probed(REFUSED)], NOW)
    assert (pause(state), state.refusals) == (None, 1)


@pytest.mark.django_db
def test_flood_of_refusals_leaves_the_rest_of_the_backlog_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEST_KEY", "a key")
    with fake_esp() as esp:
        provider = ProviderFactory(
            key="esp", backend="postmark", api_url=esp.url, secret_env="TEST_KEY", concurrency=1
        )
        MessageFactory.create_batch(80, sender=SenderFactory(provider=provider))
        esp.script = [Answer(422, {"ErrorCode": 999, "Message": "malformed"})] * 80
        drain("transactional", budget=20)
    states = Counter(Message.objects.values_list("state", flat=True))
    # The batch under way ends; nothing more begins.
    assert REFUSALS <= states["failed"] <= 50
    assert states["queued"] == 80 - states["failed"]
    assert Circuit.objects.get().open_until is not None
    pool.close()

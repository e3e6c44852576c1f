"""The outgoing lane: attempts, moves, leases, and one endpoint that must not hold up another."""

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from common.clock import now
from emailauto.sweep import sweep
from tests.factories import ContactFactory
from tests.webhooks.outgoing.receiver import Answer, Call, Receiver, receiving
from tests.webhooks.outgoing.rows import (
    drain,
    make_delivery,
    make_due,
    make_endpoint,
    make_news,
)
from webhooks.guard import Unreachable
from webhooks.models import OutgoingDelivery, OutgoingEndpoint, Turn
from webhooks.outgoing import sending, transitions
from webhooks.outgoing.fanout import queue_deliveries
from webhooks.outgoing.sending import SLOTS, Flight, drain_deliveries, rooms_for
from webhooks.outgoing.services import rotate_secret
from webhooks.outgoing.transitions import ready_endpoints
from webhooks.outgoing.verdicts import judge
from webhooks.tasks import drain_outgoing
from webhooks.turns import turn

pytestmark = pytest.mark.django_db


def fresh(endpoint: OutgoingEndpoint) -> OutgoingEndpoint:
    endpoint.refresh_from_db()
    return endpoint


def states() -> list[str]:
    return list(OutgoingDelivery.objects.order_by("id").values_list("state", flat=True))


def test_task_delivers_news_as_standard_webhooks(receiver: Receiver) -> None:
    endpoint = make_endpoint(receiver)
    news = make_news()
    queue_deliveries([news])
    drain_outgoing()
    delivery = OutgoingDelivery.objects.get()
    assert (delivery.state, delivery.attempts, delivery.status) == ("delivered", 1, 204)
    assert delivery.settled_at is not None
    assert (delivery.lease_owner, delivery.lease_until) == ("", None)
    (call,) = receiver.calls
    assert receiver.forged == []
    assert call.id == news.id
    assert call.headers["Content-Type"] == "application/json"
    assert json.loads(call.body)["data"]["message_id"] == str(news.message.pk)
    assert fresh(endpoint).delivered_at is not None


def test_failure_is_tried_again_under_the_same_id_until_it_is_dead(receiver: Receiver) -> None:
    make_delivery(make_endpoint(receiver))
    receiver.answer = lambda _call: (500, {}, b"<b>broken</b>")
    for _ in range(12):
        drain()
        make_due()
    delivery = OutgoingDelivery.objects.get()
    assert (delivery.state, delivery.attempts, delivery.status) == ("dead", 10, 500)
    assert delivery.answer == "<b>broken</b>"
    assert len(receiver.calls) == 10
    assert len({(call.id, call.body) for call in receiver.calls}) == 1


def test_attempt_is_signed_at_its_own_time(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_delivery(make_endpoint(receiver))
    receiver.answer = lambda _call: (500, {}, b"")
    drain()
    make_due()
    real = time.time
    monkeypatch.setattr(sending.time, "time", lambda: real() + 100)
    drain()
    first, second = (int(call.headers["webhook-timestamp"]) for call in receiver.calls)
    assert second - first >= 100
    assert receiver.forged == []


def test_it_waits_for_its_next_attempt(receiver: Receiver) -> None:
    make_delivery(make_endpoint(receiver))
    receiver.answer = lambda _call: (500, {}, b"")
    drain()
    drain()
    assert len(receiver.calls) == 1
    assert not ready_endpoints()


def test_secret_that_is_replaced_still_verifies_for_a_day(receiver: Receiver) -> None:
    endpoint = make_endpoint(receiver)
    new = rotate_secret(endpoint.pk)
    make_delivery(endpoint)
    drain()
    receiver.secret = new
    make_delivery(endpoint)
    drain()
    assert (states(), receiver.forged) == (["delivered"] * 2, [])
    assert receiver.calls[0].headers["webhook-signature"].count("v1,") == 2
    OutgoingEndpoint.objects.update(previous_until=now())
    make_delivery(endpoint)
    drain()
    assert receiver.calls[-1].headers["webhook-signature"].count("v1,") == 1


def test_secret_that_cannot_be_read_switches_its_endpoint_off(
    receiver: Receiver, settings: Any
) -> None:
    lost, fine = make_endpoint(receiver), make_endpoint(receiver)
    OutgoingEndpoint.objects.filter(pk=lost.pk).update(secret="gAAAAA")
    make_delivery(lost)
    make_delivery(fine)
    drain()
    assert states() == ["pending", "delivered"]
    assert (fresh(lost).is_active, lost.disabled_why) == (False, sending.UNREADABLE)
    assert OutgoingDelivery.objects.get(endpoint=lost).lease_until is None


def test_gone_switches_the_endpoint_off_and_what_waits_is_kept(receiver: Receiver) -> None:
    endpoint = make_endpoint(receiver, failures=1)
    for _ in range(3):
        make_delivery(endpoint)
    receiver.answer = lambda _call: (410, {}, b"")
    drain()
    assert states() == ["dead", "pending", "pending"]
    assert (fresh(endpoint).is_active, endpoint.disabled_why) == (False, transitions.GONE)
    assert endpoint.disabled_at is not None


def test_who_asks_for_time_is_left_alone(receiver: Receiver) -> None:
    endpoint = make_endpoint(receiver, failures=1)
    make_delivery(endpoint)
    make_delivery(endpoint)
    receiver.answer = lambda _call: (429, {"Retry-After": "600"}, b"")
    drain()
    drain()
    assert len(receiver.calls) == 1
    wait = fresh(endpoint).resume_at - now()
    assert timedelta(seconds=580) < wait < timedelta(seconds=620)
    assert endpoint.is_active
    receiver.answer = lambda _call: (204, {}, b"")
    make_due()
    drain()
    assert states() == ["delivered"] * 2


def test_endpoint_that_fails_is_left_alone_for_longer_and_longer(receiver: Receiver) -> None:
    endpoint = make_endpoint(receiver, failures=1)
    receiver.answer = lambda _call: (500, {}, b"")
    pauses = []
    for number in range(12):
        make_delivery(endpoint, due_at=now() - timedelta(days=3, minutes=-number))
        drain()
        until = fresh(endpoint).resume_at
        pauses.append(round((until - now()).total_seconds()) if until else 0)
        make_due()
    assert pauses[0] == 0
    assert pauses[1:9] == pytest.approx([5, 10, 20, 40, 80, 160, 320, 600], abs=2)
    assert max(pauses) <= 600


def test_success_ends_a_row_of_failures(receiver: Receiver) -> None:
    since = now() - timedelta(days=4)
    endpoint = make_endpoint(receiver, failures=7, failing_since=since)
    make_delivery(endpoint)
    drain()
    assert (fresh(endpoint).failures, endpoint.failing_since) == (0, None)


@pytest.mark.parametrize(("days", "is_active"), [(4.9, True), (5.1, False)])
def test_endpoint_that_only_fails_is_switched_off_after_five_days(
    days: float, is_active: bool, receiver: Receiver
) -> None:
    since = now() - timedelta(days=days)
    endpoint = make_endpoint(receiver, failures=2, failing_since=since)
    make_delivery(endpoint)
    receiver.answer = lambda _call: (500, {}, b"")
    drain()
    assert fresh(endpoint).is_active is is_active
    assert endpoint.failing_since == since
    assert endpoint.disabled_why == ("" if is_active else transitions.FAILED)
    assert states() == ["pending"]


def test_nothing_is_told_about_somebody_who_said_so_meanwhile(receiver: Receiver) -> None:
    endpoint = make_endpoint(receiver)
    contact = ContactFactory()
    make_delivery(endpoint, contact=contact, body="about them")
    make_delivery(endpoint, contact=ContactFactory())
    contact.do_not_share = True
    contact.save()
    drain()
    assert states() == ["withheld", "delivered"]
    assert OutgoingDelivery.objects.filter(contact=contact).get().body == ""
    assert len(receiver.calls) == 1
    assert fresh(endpoint).failures == 0


def test_what_was_to_be_told_goes_with_its_person(receiver: Receiver) -> None:
    contact = ContactFactory()
    make_delivery(make_endpoint(receiver), contact=contact)
    contact.delete()
    assert states() == []


def test_no_secret_no_url_and_no_body_is_in_any_line_of_the_log(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint = make_endpoint(receiver, failing_since=now() - timedelta(days=6))
    for status in (500, 410):
        receiver.answer = lambda _call, status=status: (status, {}, b"said by them")
        make_delivery(endpoint, body="about somebody")
        drain()
        make_due()
    new = rotate_secret(endpoint.pk)
    lines = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "outgoing webhooks disabled" in lines
    for canary in (receiver.secret, new, receiver.url, "somebody", "said by them"):
        assert canary.removeprefix("whsec_") not in lines


def test_call_that_fails_in_a_way_nobody_thought_of_is_one_failure(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = make_endpoint(receiver)
    bad, good = make_delivery(endpoint), make_delivery(endpoint)
    as_usual = sending.exchange

    def fail(method: str, url: str, **more: Any) -> Any:
        if more["headers"]["webhook-id"] == bad.event_id:
            raise ZeroDivisionError
        return as_usual(method, url, **more)

    monkeypatch.setattr(sending, "exchange", fail)
    monkeypatch.setattr(sending.logger, "exception", lambda *_, **__: None)
    drain()
    bad.refresh_from_db()
    good.refresh_from_db()
    assert (bad.state, bad.answer, good.state) == ("pending", "ZeroDivisionError", "delivered")


def test_inactive_endpoint_hears_nothing(receiver: Receiver) -> None:
    make_delivery(make_endpoint(receiver, is_active=False))
    drain()
    assert (receiver.calls, states()) == ([], ["pending"])
    assert not ready_endpoints()


def test_url_that_leads_inside_is_a_failure_that_says_so(receiver: Receiver, settings: Any) -> None:
    make_delivery(make_endpoint(receiver))
    settings.OUTGOING_ALLOWED_HOSTS = []
    drain()
    delivery = OutgoingDelivery.objects.get()
    assert (delivery.state, delivery.status) == ("pending", None)
    assert delivery.answer == "The URL has to begin with https://."
    assert receiver.calls == []


def test_redirect_is_a_failure(receiver: Receiver) -> None:
    make_delivery(make_endpoint(receiver))
    receiver.answer = lambda _call: (302, {"Location": "http://169.254.169.254/"}, b"")
    drain()
    assert (states(), len(receiver.calls)) == (["pending"], 1)


def test_deliveries_of_a_dead_worker_are_taken_over(receiver: Receiver) -> None:
    endpoint = make_endpoint(receiver)
    make_delivery(endpoint)
    assert len(transitions.claim({endpoint.pk: 5})) == 1
    drain()
    assert states() == ["pending"]
    make_due()
    drain()
    assert states() == ["delivered"]
    assert OutgoingDelivery.objects.get().attempts == 1


def test_worker_that_lost_its_lease_writes_nothing(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_delivery(make_endpoint(receiver))
    as_usual = sending.settle

    def lose_the_lease(results: Any) -> None:
        OutgoingDelivery.objects.update(lease_owner="another worker")
        as_usual(results)

    monkeypatch.setattr(sending, "settle", lose_the_lease)
    drain_deliveries(budget=1)
    delivery = OutgoingDelivery.objects.get()
    assert (delivery.state, delivery.lease_owner) == ("pending", "another worker")


def test_two_workers_never_claim_the_same(receiver: Receiver) -> None:
    endpoint = make_endpoint(receiver)
    for _ in range(5):
        make_delivery(endpoint)
    claims = [transitions.claim({endpoint.pk: 2}) for _ in range(4)]
    assert [len(claim) for claim in claims] == [2, 2, 1, 0]
    assert len({item.id for claim in claims for item in claim}) == 5
    assert len({item.lease_owner for claim in claims for item in claim}) == 3


def test_sweep_rings_for_what_is_due(receiver: Receiver) -> None:
    endpoint = make_endpoint(receiver)
    assert "outgoing" not in sweep()
    make_delivery(endpoint)
    assert "outgoing" in sweep()


# --- One endpoint, and the others ---------------------------------------------------------


class Gate:
    """Holds up the answers of the slow ones until the quick one has heard all it should; `held`
    says of each whether that happened in time."""

    PATIENCE = 12.0

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.held: list[bool] = []

    def slow(self, _call: Call) -> Answer:
        self.held.append(self.is_open.wait(self.PATIENCE))
        return 204, {}, b""


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.is_open.set()


@pytest.fixture
def slow(gate: Gate) -> Iterator[list[Receiver]]:
    with ExitStack() as stack:
        yield [stack.enter_context(receiving(answer=gate.slow)) for _ in range(6)]


def test_slow_endpoints_do_not_hold_up_the_others(
    receiver: Receiver, slow: list[Receiver], gate: Gate
) -> None:
    for other in slow:
        endpoint = make_endpoint(other)
        for _ in range(10):
            make_delivery(endpoint, due_at=now() - timedelta(hours=1))
    quick = make_endpoint(receiver)
    for _ in range(40):
        make_delivery(quick)

    def count(_call: Call) -> Answer:
        if len(receiver.calls) == 40:
            gate.is_open.set()
        return 204, {}, b""

    receiver.answer = count
    drain()
    assert set(states()) == {"delivered"}
    assert gate.held == [True] * 60, "the quick one waited for the slow ones"
    assert max(other.most_at_once for other in slow) <= 8


def test_news_for_a_quick_endpoint_do_not_wait_for_the_last_slow_answer(
    receiver: Receiver, slow: list[Receiver], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_delivery(make_endpoint(slow[0]))
    quick = make_endpoint(receiver)
    as_usual, late = sending._land, []

    def arrive(flight: Flight) -> None:
        as_usual(flight)
        if not late:
            late.append(make_delivery(quick))

    def open_the_gate(_call: Call) -> Answer:
        gate.is_open.set()
        return 204, {}, b""

    monkeypatch.setattr(sending, "_land", arrive)
    receiver.answer = open_the_gate
    # Over once the slow one has been waited for the first time, and not before it was called.
    drain_deliveries(budget=sending._LOOK_SECONDS / 2)
    assert states() == ["delivered"] * 2
    assert gate.held == [True]


def endpoints(*failures: int) -> list[OutgoingEndpoint]:
    return [OutgoingEndpoint(pk=pk, failures=f) for pk, f in enumerate(failures, start=1)]


def test_everybody_gets_a_first_call_before_anybody_gets_a_second() -> None:
    flight: Any = Flight(pool=None)  # type: ignore[arg-type]
    assert rooms_for(endpoints(0), flight) == {1: 8}
    assert rooms_for(endpoints(0, 3), flight) == {1: 8, 2: 1}
    assert rooms_for(endpoints(0, 0), flight) == {1: 8, 2: 8}
    assert rooms_for(endpoints(*[0] * 4), flight) == dict.fromkeys(range(1, 5), 6)
    assert sum(rooms_for(endpoints(*[0] * 10), flight).values()) == SLOTS - 8
    assert sum(rooms_for(endpoints(*[0] * 50), flight).values()) == SLOTS


def test_whose_turn_was_last_waits() -> None:
    flight: Any = Flight(pool=None)  # type: ignore[arg-type]
    flight.turns = dict.fromkeys(range(1, 33), 5.0)
    rooms = rooms_for(endpoints(*[0] * 40), flight)
    assert set(range(33, 41)) <= set(rooms)


def test_second_drain_leaves_at_once(receiver: Receiver) -> None:
    make_delivery(make_endpoint(receiver))
    with turn(sending.TURN, seconds=60):
        assert drain_deliveries(budget=5) is False
        assert states() == ["pending"]
    drain()
    assert states() == ["delivered"]
    assert Turn.objects.get().lease_owner == ""


def test_drain_holds_no_lock_of_its_session(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a pooler its statements go over any session, and the lock would stay with one."""
    make_delivery(make_endpoint(receiver))
    with CaptureQueriesContext(connection) as queries:
        drain()
    assert states() == ["delivered"]
    assert [q["sql"] for q in queries if "advisory" in q["sql"].lower()] == []


@pytest.mark.django_db(transaction=True)
def test_drain_that_lost_its_turn_ends_its_calls_and_makes_no_others(
    receiver: Receiver, settings: Any
) -> None:
    """Say, because the database was away for longer than its lease."""
    settings.LEASE_SECONDS = 1
    endpoint = make_endpoint(receiver, failures=1)  # one call at a time
    for _ in range(2):
        make_delivery(endpoint)

    def take_over(_call: Call) -> Answer:
        try:
            Turn.objects.update(lease_owner="another")
        finally:
            connection.close()
        time.sleep(0.5)
        return 200, {}, b""

    receiver.answer = take_over
    drain_deliveries(budget=20)
    assert sorted(states()) == ["delivered", "pending"]
    assert Turn.objects.get().lease_owner == "another"


def queries_of(number: int, endpoint: OutgoingEndpoint) -> int:
    for _ in range(number):
        make_delivery(endpoint)
    claimed = transitions.claim({endpoint.pk: number})
    verdicts = [(item, judge(1, Unreachable("timeout"))) for item in claimed]
    with CaptureQueriesContext(connection) as queries:
        transitions.settle(verdicts)
    assert len(claimed) == number
    return len(queries)


def test_number_of_statements_does_not_depend_on_the_number_of_answers() -> None:
    endpoint = make_endpoint()
    assert queries_of(1, endpoint) == queries_of(50, endpoint)

"""`/metrics` as Prometheus reads it."""

import math
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from prometheus_client.parser import text_string_to_metric_families

from delivery.states import MessageState
from events.models import Consumer, Event, Rejection, Scope
from events.states import EventState, RefusalCode
from monitoring import metrics
from monitoring.models import Heartbeat
from monitoring.services import SWEEP, beat
from tests.factories import EventFactory, MessageFactory, make_api_key

pytestmark = pytest.mark.django_db

# As Prometheus 3 asks.
ACCEPT = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,*/*;q=0.1"
)


def get(token: str, accept: str = ACCEPT) -> Any:
    return Client().get("/metrics", headers={"Authorization": f"Bearer {token}", "Accept": accept})


@pytest.fixture
def token() -> str:
    return make_api_key(scopes=[Scope.METRICS_READ])[1]


def scraped(token: str) -> dict[tuple[str, ...], float]:
    """Value by name and label values, in the order of the labels' names."""
    response = get(token)
    assert response.status_code == 200
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.content.decode())
        for sample in family.samples
    }


def test_a_key_without_the_scope_reads_nothing() -> None:
    response = get(make_api_key()[1])
    assert (response.status_code, response.json()["code"]) == (403, "permission_denied")


@pytest.mark.parametrize("token", ["", "nonsense", "emauto_live_aaaaaaaa_" + "b" * 40])
def test_without_a_valid_key_nothing_is_read(token: str) -> None:
    response = get(token)
    assert response.status_code == 401
    assert set(response.json()) == {"code", "message", "details"}


def test_answer_is_in_the_text_format_whatever_is_asked_for(token: str) -> None:
    for accept in (ACCEPT, "application/vnd.google.protobuf", "text/html"):
        response = get(token, accept)
        assert response.status_code == 200
        assert response["Content-Type"].startswith("text/plain; version=0.0.4")
        assert "no-store" in response["Cache-Control"]


def test_empty_database_has_every_number_but_those_of_consumers(token: str) -> None:
    found = scraped(token)
    for name in ("worker_idle_seconds", "repairs_idle_seconds", "polls_oldest_ok_seconds"):
        assert math.isnan(found.pop((f"emailauto_{name}",)))
    assert set(found.values()) == {0.0}
    assert {name for name, *_ in found} == {
        "emailauto_events",
        "emailauto_events_oldest_pending_seconds",
        "emailauto_events_refused",
        "emailauto_messages",
        "emailauto_lane_due",
        "emailauto_lane_oldest_due_seconds",
        "emailauto_receipts",
        "emailauto_receipts_oldest_due_seconds",
        "emailauto_answers",
        "emailauto_answers_oldest_seconds",
        "emailauto_outgoing_deliveries",
        "emailauto_outgoing_oldest_due_seconds",
        "emailauto_polls",
    }


def test_events_are_counted_by_state_and_the_oldest_wait_is_told(token: str) -> None:
    EventFactory.create_batch(3)
    EventFactory(state=EventState.DEAD)
    EventFactory(state=EventState.PROCESSED)
    Event.objects.filter(pk=Event.objects.earliest("pk").pk).update(
        due_at=Now() - timedelta(minutes=5)
    )
    found = scraped(token)
    assert (found["emailauto_events", "pending"], found["emailauto_events", "dead"]) == (3, 1)
    assert 300 <= found["emailauto_events_oldest_pending_seconds",] < 400


def test_event_that_waits_for_a_later_attempt_does_not_count_as_waiting(token: str) -> None:
    EventFactory(due_at=Now() + timedelta(minutes=5))
    found = scraped(token)
    assert found["emailauto_events", "pending"] == 1
    assert found["emailauto_events_oldest_pending_seconds",] == 0


def test_refused_events_are_counted_by_code(token: str) -> None:
    for number, code in enumerate([RefusalCode.SCHEMA, RefusalCode.SCHEMA, RefusalCode.RESIDENCY]):
        Rejection.objects.create(source="api", event_id=f"e{number}", code=code)
    found = scraped(token)
    counts = {code: found["emailauto_events_refused", code.value] for code in RefusalCode}
    assert {code: count for code, count in counts.items() if count} == {
        RefusalCode.SCHEMA: 2,
        RefusalCode.RESIDENCY: 1,
    }


def test_consumers_are_told_by_partition(token: str) -> None:
    place = {"broker": "kafka", "queue": "marketing.events"}
    Consumer.objects.create(**place, partition=0, lag=7, recorded=20, dead_lettered=2)
    Consumer.objects.create(**place, partition=1, lag=None)
    Consumer.objects.filter(partition=1).update(seen_at=Now() - timedelta(minutes=2))
    found = scraped(token)
    first, second = (("kafka", partition, "marketing.events") for partition in "01")
    assert found["emailauto_consumer_lag", *first] == 7
    assert ("emailauto_consumer_lag", *second) not in found
    assert found["emailauto_consumer_recorded_total", *first] == 20
    assert found["emailauto_consumer_dead_lettered_total", *first] == 2
    assert found["emailauto_consumer_seen_seconds", *first] < 60
    assert 120 <= found["emailauto_consumer_seen_seconds", *second] < 180


def test_messages_are_counted_by_state_unless_they_are_done_with(token: str) -> None:
    MessageFactory.create_batch(2)
    MessageFactory(state=MessageState.UNKNOWN)
    MessageFactory(state=MessageState.SENT)
    found = scraped(token)
    counts = {key[1]: value for key, value in found.items() if key[0] == "emailauto_messages"}
    assert {state: count for state, count in counts.items() if count} == {
        "queued": 2,
        "unknown": 1,
    }
    assert "sent" not in counts


def test_worker_that_makes_no_progress_shows(token: str) -> None:
    beat(SWEEP)
    Heartbeat.objects.update(at=F("at") - timedelta(seconds=90))
    assert 90 <= scraped(token)["emailauto_worker_idle_seconds",] < 150


def test_counting_has_an_end(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MOST", 2)
    EventFactory.create_batch(4)
    assert scraped(token)["emailauto_events", "pending"] == 2


def test_number_of_queries_does_not_depend_on_what_there_is(token: str) -> None:
    counts = []
    for size in (1, 3):
        EventFactory.create_batch(size)
        MessageFactory.create_batch(size)
        for partition in range(size):
            Consumer.objects.get_or_create(broker="kafka", queue="q", partition=partition)
        with CaptureQueriesContext(connection) as queries:
            get(token)
        counts.append(len(queries))
    # The first request of a key also notes that it was used.
    assert counts[0] - 1 == counts[1] <= 28

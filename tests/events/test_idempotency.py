"""`Idempotency-Key`: the same request gets the same answer, whatever became of the first one."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.test import Client

from common.clock import now
from events.idempotency import lock_number
from events.models import Event, EventType, IdempotentReply
from events.retention import purge
from tests.factories import event_document, make_api_key

pytestmark = pytest.mark.django_db


@pytest.fixture
def token() -> str:
    return make_api_key()[1]


def post(token: str, body: Any, key: str = "k-1") -> Any:
    return Client().post(
        "/api/v1/events",
        json.dumps(body),
        content_type="application/json",
        headers={"Authorization": f"Bearer {token}", "Idempotency-Key": key},
    )


def test_same_request_gets_the_stored_answer(token: str) -> None:
    body = [event_document("e1"), {"event_id": "bad"}, event_document("e1")]
    first = post(token, body)
    assert [item["status"] for item in first.json()["results"]] == [
        "accepted",
        "invalid",
        "duplicate",
    ]
    again = post(token, body)
    assert (again.status_code, again.content) == (202, first.content)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert Event.objects.count() == 1


def test_same_key_with_another_body_is_refused_and_stores_nothing(token: str) -> None:
    post(token, event_document("e1"))
    response = post(token, event_document("e2"))
    assert (response.status_code, response.json()["code"]) == (422, "idempotency_key_reused")
    assert Event.objects.count() == 1


def test_same_key_from_another_source_is_another_request(token: str) -> None:
    other = make_api_key(source="shop-2")[1]
    assert post(token, event_document("e1")).status_code == 202
    assert post(other, event_document("e2")).status_code == 202


def test_refused_request_may_be_mended_under_the_same_key(token: str) -> None:
    post(token, event_document("known"))
    conflict = post(token, event_document("known", payload={}), key="k-2")
    assert conflict.status_code == 409
    assert post(token, event_document("mended"), key="k-2").status_code == 202


def test_event_its_schema_refuses_is_remembered_though_its_answer_is_not(token: str) -> None:
    EventType.objects.create(name="UserSignedUp", schema={"type": "object", "required": ["plan"]})
    assert post(token, event_document("e1")).status_code == 422
    assert not IdempotentReply.objects.exists()
    assert post(token, event_document("e1", payload={"plan": "a"})).status_code == 202


@pytest.mark.parametrize("key", ["k" * 256, "a\x01b"])
def test_key_that_cannot_be_kept_is_refused(token: str, key: str) -> None:
    assert post(token, event_document("e1"), key=key).status_code == 400
    assert not Event.objects.exists()


def test_answer_is_forgotten_after_a_day(token: str) -> None:
    post(token, event_document("e1"))
    IdempotentReply.objects.update(created_at=now() - timedelta(hours=25))
    assert post(token, event_document("e2")).status_code == 202
    assert IdempotentReply.objects.count() == 1
    IdempotentReply.objects.update(created_at=now() - timedelta(hours=25))
    purge()
    assert not IdempotentReply.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_request_that_is_being_answered_is_a_409_with_a_time_to_come_back(token: str) -> None:
    parameters = connection.get_connection_params()
    ours = ("dbname", "user", "password", "host", "port")
    with psycopg.connect(
        **{name: parameters[name] for name in ours if name in parameters}
    ) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [lock_number("api", "k-1")])
        response = post(token, event_document("e1"))
    assert (response.status_code, response.json()["code"]) == (409, "in_progress")
    assert response.headers["Retry-After"] == "2"
    assert not Event.objects.exists()
    assert post(token, event_document("e1")).status_code == 202


@pytest.mark.django_db(transaction=True)
def test_same_request_many_times_at_once_is_kept_once(token: str) -> None:
    body = [event_document(f"e{n}") for n in range(20)]

    def again(_: int) -> tuple[int, bytes]:
        try:
            response = post(token, body)
            # Each repetition counts against the key's rate, however soon it is turned away.
            while response.status_code in (409, 429):
                time.sleep(0.05)
                response = post(token, body)
            return response.status_code, response.content
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        answers = set(pool.map(again, range(18)))
    assert len(answers) == 1
    assert Event.objects.count() == 20

"""`POST /api/v1/events` as a service sees it."""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from events.models import ApiKey, Event, Scope
from tests.factories import event_document, make_api_key

pytestmark = pytest.mark.django_db

URL = "/api/v1/events"


@pytest.fixture
def token() -> str:
    return make_api_key()[1]


def post(token: str, body: Any, **headers: str) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Client().post(
        URL,
        raw,
        content_type="application/json",
        headers={"Authorization": f"Bearer {token}", **headers},
    )


def test_event_is_accepted_and_stored_as_posted(token: str) -> None:
    document = event_document("e1")
    response = post(token, document)
    assert (response.status_code, response.json()) == (
        202,
        {"event_id": "e1", "status": "accepted"},
    )
    event = Event.objects.get()
    assert (event.source, event.event_id, event.type, event.user_id) == (
        "api",
        "e1",
        "UserSignedUp",
        "user-e1",
    )
    assert int(event.occurred_at.timestamp() * 1000) == document["timestamp"]
    assert (event.payload, event.metadata) == (document["payload"], document["metadata"])
    assert event.state == "pending"


def test_same_event_again_gets_the_same_answer(token: str) -> None:
    document = event_document("e1")
    first = post(token, document)
    again = post(token, dict(reversed(document.items())))
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert Event.objects.count() == 1


def test_same_id_with_another_body_is_a_conflict(token: str) -> None:
    document = event_document("e1")
    post(token, document)
    response = post(token, {**document, "payload": {"email": "other@example.com"}})
    assert response.status_code == 409
    assert response.json()["code"] == "conflict"
    assert Event.objects.get().payload == document["payload"]


def test_same_id_from_another_source_is_another_event(token: str) -> None:
    _, other = make_api_key(source="shop-2")
    post(token, event_document("e1"))
    post(other, event_document("e1", payload={}))
    assert Event.objects.count() == 2


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"event_id": None}, "event_id"),
        ({"event_id": ""}, "event_id"),
        ({"event_id": 7}, "event_id"),
        ({"event_id": "x" * 201}, "event_id"),
        ({"event_id": "a\nb"}, "event_id"),
        ({"event_type": None}, "event_type"),
        ({"event_type": ["x"]}, "event_type"),
        ({"user_id": 7}, "user_id"),
        ({"timestamp": None}, "timestamp"),
        ({"timestamp": "2026-01-01"}, "timestamp"),
        ({"timestamp": True}, "timestamp"),
        ({"timestamp": 1.5}, "timestamp"),
        ({"timestamp": -1}, "timestamp"),
        ({"timestamp": 1_790_000_000}, "timestamp"),
        ({"timestamp": 10**17}, "timestamp"),
        ({"payload": None}, "payload"),
        ({"payload": []}, "payload"),
        ({"payload": "x"}, "payload"),
        ({"metadata": "x"}, "metadata"),
        ({"state": "dead"}, "state"),
    ],
)
def test_wrong_shape_is_refused_with_its_path(token: str, change: Any, path: str) -> None:
    response = post(token, {**event_document("e1"), **change})
    assert response.status_code == 400
    assert response.json()["details"][0]["path"] == path
    assert Event.objects.count() == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'"text"',
        b"null",
        b"7",
        b"[]",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 5_000 + b"}",
        b'{"a": "\\u0000"}',
        b'{"\\u0000": 1}',
        b'{"a": "\\ud800"}',
        b'{"a": "\xff"}',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b"[" * 100_000,
        b'{"a":' * 5_000,
    ],
)
def test_body_that_is_no_storable_json_is_refused(token: str, body: bytes) -> None:
    response = post(token, body)
    assert response.status_code == 400
    assert set(response.json()) == {"code", "message", "details"}


def test_payload_nested_too_deeply_is_refused_with_its_path(token: str) -> None:
    payload: Any = 1
    for _ in range(40):
        payload = {"a": payload}
    response = post(token, event_document("e1", payload=payload))
    assert response.status_code == 400
    assert response.json()["details"][0]["path"].startswith("payload.a.a")


def test_body_over_the_limit_is_refused(token: str) -> None:
    body = json.dumps(event_document("e1", payload={"a": "x" * 6_000_000})).encode()
    response = post(token, body)
    assert (response.status_code, response.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer nonsense", "Bearer emauto_live_aaaaaaaa_" + "b" * 40, "Basic eDp5"],
)
def test_without_a_valid_key_nothing_is_stored(authorization: str) -> None:
    response = Client().post(
        URL,
        json.dumps(event_document("e1")),
        content_type="application/json",
        headers={"Authorization": authorization} if authorization else {},
    )
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert Event.objects.count() == 0


def test_revoked_key_and_key_without_the_scope_are_refused(token: str) -> None:
    _, reader = make_api_key(scopes=[Scope.MESSAGES_READ])
    assert post(reader, event_document("e1")).status_code == 403
    ApiKey.objects.update(revoked_at="2026-01-01T00:00:00Z")
    assert post(token, event_document("e1")).status_code == 401


def test_key_is_stored_as_a_hash(token: str) -> None:
    key = ApiKey.objects.get()
    stored = " ".join(map(str, vars(key).values())) + bytes(key.secret_hash).hex()
    assert token.rpartition("_")[2] not in stored


def test_list_is_answered_item_by_item(token: str) -> None:
    post(token, event_document("old"))
    known = {**event_document("old"), "timestamp": 1_790_000_000_000}
    good, twice = event_document("new"), event_document("twice")
    response = post(token, [good, {"event_id": "bad"}, known, twice, twice, 7])
    assert response.status_code == 202
    results = response.json()["results"]
    assert [(item["event_id"], item["status"], item.get("code")) for item in results] == [
        ("new", "accepted", None),
        ("bad", "invalid", "invalid"),
        ("old", "invalid", "conflict"),
        ("twice", "accepted", None),
        ("twice", "duplicate", None),
        (None, "invalid", "invalid"),
    ]
    assert results[1]["details"][0]["path"] == "1.event_type"
    assert Event.objects.count() == 3


def test_list_of_nothing_but_bad_events_is_refused(token: str) -> None:
    response = post(token, [{}, 1])
    assert response.status_code == 400
    assert response.json()["details"][0]["path"] == "0.event_id"


def test_list_over_a_thousand_is_refused_whole(token: str) -> None:
    response = post(token, [event_document(str(n)) for n in range(1_001)])
    assert (response.status_code, response.json()["code"]) == (413, "too_many")
    assert Event.objects.count() == 0


def test_number_of_queries_is_the_same_for_1_and_50_events(token: str) -> None:
    for name in ("new-type", "known-type"):
        post(token, event_document(name))
    counts = []
    for size in (1, 50):
        with CaptureQueriesContext(connection) as queries:
            post(token, [event_document(f"{size}-{n}") for n in range(size)])
        counts.append(len(queries))
    assert counts[0] == counts[1]


@pytest.mark.django_db(transaction=True)
def test_same_events_in_any_order_from_four_clients_are_stored_once(token: str) -> None:
    documents = [event_document(f"e{n}") for n in range(60)]

    def client(seed: int) -> set[int]:
        mine = documents * 2
        random.Random(seed).shuffle(mine)
        try:
            return {
                post(token, mine[start : start + 7]).status_code for start in range(0, len(mine), 7)
            }
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert set().union(*pool.map(client, range(4))) == {202}
    assert Event.objects.count() == 60

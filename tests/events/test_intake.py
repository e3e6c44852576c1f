"""What every wire format shares: keys, compression, admission, residency, retention."""

import base64
import gzip
import json
import zlib
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from common.clock import now
from contacts.models import Contact
from emailauto.config import Config, Residency
from events.models import Event, EventType, Rejection, SeenType
from events.retention import purge
from tests.factories import ContactFactory, EventFactory, event_document, make_api_key

pytestmark = pytest.mark.django_db


@pytest.fixture
def token() -> str:
    return make_api_key()[1]


@pytest.fixture
def configure(settings: Any) -> Any:
    def change(section: str, **values: Any) -> None:
        config: Config = settings.EMAILAUTO
        changed = msgspec.structs.replace(getattr(config, section), **values)
        settings.EMAILAUTO = msgspec.structs.replace(config, **{section: changed})

    return change


def post(token: str, body: Any, **headers: str) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}", **headers}
    return Client().post("/api/v1/events", raw, "application/json", headers=headers)


def packed(token: str, raw: bytes, encoding: str = "gzip") -> Any:
    return post(token, raw, **{"Content-Encoding": encoding})


# --- Compression --------------------------------------------------------------------------------


def test_gzip_body_is_read(token: str) -> None:
    raw = gzip.compress(json.dumps([event_document(f"e{n}") for n in range(100)]).encode())
    assert packed(token, raw).status_code == 202
    assert Event.objects.count() == 100


def test_gzip_bomb_is_refused(token: str) -> None:
    bomb = gzip.compress(b" " * 200_000_000, compresslevel=9)
    assert len(bomb) < 1_000_000
    response = packed(token, bomb)
    assert (response.status_code, response.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    "raw",
    [
        b"no gzip",
        gzip.compress(b"{}")[:-4],
        gzip.compress(b"{}") + b"more",
        zlib.compress(b"{}"),
    ],
    ids=["no gzip", "cut off", "more behind it", "zlib"],
)
def test_broken_gzip_is_refused(token: str, raw: bytes) -> None:
    response = packed(token, raw)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_gzip")


def test_other_encodings_are_refused(token: str) -> None:
    assert packed(token, b"{}", "br").status_code == 415


# --- Keys ---------------------------------------------------------------------------------------


def test_key_may_come_as_the_user_of_basic(token: str) -> None:
    body = json.dumps(event_document("e1"))
    basic = "Basic " + base64.b64encode(f"{token}:".encode()).decode()
    response = Client().post(
        "/api/v1/events", body, "application/json", headers={"Authorization": basic}
    )
    assert response.status_code == 202


@pytest.mark.parametrize("header", ["Basic !!!", "Basic /////w==", "Basic", "Digest abc"])
def test_header_that_holds_no_key_is_a_401(header: str) -> None:
    headers = {"Authorization": header}
    response = Client().post("/api/v1/events", "{}", "application/json", headers=headers)
    assert response.status_code == 401


# --- Types --------------------------------------------------------------------------------------


def test_unregistered_type_is_refused_where_that_is_the_policy(token: str, configure: Any) -> None:
    configure("events", unregistered_types="refuse")
    response = post(token, event_document("e1", event_type="Unknown"))
    assert (response.status_code, response.json()["code"]) == (422, "unregistered")
    assert response.json()["details"][0]["path"] == "event_type"
    EventType.objects.create(name="Unknown")
    assert post(token, event_document("e1", event_type="Unknown")).status_code == 202
    assert not SeenType.objects.exists()


def test_event_that_does_not_fit_is_refused_and_remembered_without_its_content(token: str) -> None:
    schema = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["id"]}
    EventType.objects.create(name="Order", schema=schema)
    document = event_document("e1", event_type="Order", payload={"total": "secret text"})
    for _ in range(3):
        response = post(token, document)
    assert (response.status_code, response.json()["code"]) == (422, "schema")
    assert {detail["path"] for detail in response.json()["details"]} == {"/total", "/id"}
    kept = Rejection.objects.get()
    assert (kept.event_id, kept.type, kept.code, kept.times, kept.body) == (
        "e1",
        "Order",
        "schema",
        3,
        None,
    )
    assert "secret" not in response.text + json.dumps(kept.problems)
    assert not Event.objects.exists()


def test_schema_that_cannot_be_used_refuses_its_own_events_only(token: str) -> None:
    EventType.objects.create(name="Broken", schema={"type": "no such type"})
    assert post(token, event_document("e1", event_type="Broken")).status_code == 422
    assert post(token, event_document("e2")).status_code == 202


def test_registered_type_takes_no_room_among_the_made_up_ones(token: str, configure: Any) -> None:
    configure("events", max_unregistered_types=1)
    assert post(token, event_document("e1", event_type="A")).status_code == 202
    assert post(token, event_document("e2", event_type="B")).status_code == 422
    EventType.objects.create(name="A")
    assert post(token, event_document("e3", event_type="B")).status_code == 202


# --- Residency ----------------------------------------------------------------------------------


@pytest.fixture
def only_eu(configure: Any) -> Any:
    def restrict(unknown: str = "accept") -> None:
        configure("compliance", residency=Residency(regions=["eu-*", "de"], unknown=unknown))

    restrict()
    return restrict


def test_event_of_a_foreign_region_is_refused_before_anything_of_it_is_stored(
    token: str, only_eu: Any
) -> None:
    document = event_document("e1", payload={"email": "ada@example.com"})
    response = post(token, {**document, "metadata": {"region": "us-east-1"}})
    assert (response.status_code, response.json()["code"]) == (422, "residency")
    kept = Rejection.objects.get()
    assert (kept.event_id, kept.type, kept.code, kept.body) == ("e1", "", "residency", None)
    assert not Event.objects.exists()
    assert not SeenType.objects.exists()


@pytest.mark.parametrize("region", [["us-east-1"], {"name": "us"}, 1, True, "", "x" * 300])
def test_region_that_is_no_permitted_text_is_foreign(token: str, only_eu: Any, region: Any) -> None:
    only_eu("refuse")
    assert post(token, event_document("e1", metadata={"region": region})).status_code == 422
    assert not Event.objects.exists()


@pytest.mark.parametrize("region", ["eu-west-1", "EU-central-1", "de"])
def test_event_of_a_permitted_region_is_kept(token: str, only_eu: Any, region: str) -> None:
    assert post(token, event_document("e1", metadata={"region": region})).status_code == 202


def test_person_of_a_foreign_region_is_refused_whatever_the_event_says(
    token: str, only_eu: Any
) -> None:
    ContactFactory(user_id="u-1", region="us")
    response = post(token, event_document("e1", user_id="u-1", metadata={"region": "eu-west-1"}))
    assert (response.status_code, response.json()["code"]) == (422, "residency")
    assert not Event.objects.exists()


@pytest.mark.parametrize(("policy", "status"), [("accept", 202), ("refuse", 422)])
def test_unknown_region_is_a_matter_of_policy(
    token: str, only_eu: Any, policy: str, status: int
) -> None:
    only_eu(policy)
    ContactFactory(user_id="known", region="de")
    assert post(token, event_document("e1", metadata={})).status_code == status
    assert post(token, event_document("e2", metadata={}, user_id="known")).status_code == 202


def test_number_of_queries_is_the_same_for_1_and_50_restricted_events(
    token: str, only_eu: Any
) -> None:
    for name in ("new-type", "known-type"):
        post(token, event_document(name))
    foreign = {"region": "us"}
    counts = []
    for size in (1, 50):
        kept = [event_document(f"{size}-{n}") for n in range(size)]
        refused = [event_document(f"x{size}-{n}", metadata=foreign) for n in range(size)]
        with CaptureQueriesContext(connection) as queries:
            post(token, kept + refused)
        counts.append(len(queries))
    assert counts[0] == counts[1]
    assert Contact.objects.count() == 0


# --- Retention ----------------------------------------------------------------------------------


def test_purge_takes_what_is_old_and_settled_and_nothing_else() -> None:
    old, young = now() - timedelta(days=91), now() - timedelta(days=89)
    for state in ("processed", "ignored", "pending", "dead"):
        EventFactory(event_id=f"old-{state}", state=state, received_at=old)
    EventFactory(event_id="young", state="processed", received_at=young)
    Rejection.objects.create(source="api", event_id="r-old", code="schema", last_at=old)
    Rejection.objects.create(source="api", event_id="r-young", code="schema", last_at=young)
    assert purge() == 2
    assert purge() == 0
    assert set(Event.objects.values_list("event_id", flat=True)) == {
        "old-pending",
        "old-dead",
        "young",
    }
    assert Rejection.objects.get().event_id == "r-young"


def test_purge_goes_on_past_what_it_has_to_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.retention._CHUNK", 3)
    old = now() - timedelta(days=91)
    for n in range(10):
        EventFactory(event_id=f"dead-{n}", state="dead", received_at=old)
        EventFactory(event_id=f"done-{n}", state="processed", received_at=old)
    assert purge() == 10
    assert Event.objects.count() == 10

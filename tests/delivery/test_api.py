"""`GET /api/v1/messages` as a script sees it."""

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from delivery.models import Message
from events.models import Scope
from tests.factories import MessageFactory, make_api_key

pytestmark = pytest.mark.django_db

URL = "/api/v1/messages"


def get(path: str = URL, *, scopes: list[str] | None = None, **query: str) -> Any:
    _, token = make_api_key(**({"scopes": scopes} if scopes else {}))
    return Client().get(path, query, headers={"Authorization": f"Bearer {token}"})


def test_messages_are_listed_newest_first_with_count() -> None:
    first, second = MessageFactory(), MessageFactory(origin_event_id="e2")
    body = get().json()
    assert body["count"] == 2
    assert [item["id"] for item in body["results"]] == [str(second.pk), str(first.pk)]
    assert body["results"][0]["event_id"] == "e2"
    assert body["results"][0]["state"] == "queued"


def test_pages_follow_each_other() -> None:
    MessageFactory.create_batch(3)
    body = get(page_size="2").json()
    assert (body["count"], len(body["results"])) == (3, 2)
    assert len(get(page_size="2", page="2").json()["results"]) == 1


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"email": "ADA@example.com"}, ["ada"]),
        ({"event_id": "e1"}, ["ada"]),
        ({"state": "sent"}, ["bob"]),
        ({"state": "sent", "email": "ada@example.com"}, []),
        ({"email": "nobody@example.com"}, []),
    ],
)
def test_filters_narrow_down(query: dict[str, str], expected: list[str]) -> None:
    MessageFactory(contact__email="ada@example.com", origin_event_id="e1", dedupe_key="ada")
    MessageFactory(state="sent", dedupe_key="bob")
    ids = [item["id"] for item in get(**query).json()["results"]]
    found = Message.objects.filter(pk__in=ids).values_list("dedupe_key", flat=True)
    assert list(found) == expected


@pytest.mark.parametrize(
    ("query", "path"),
    [({"state": "gone"}, "state"), ({"email": "x"}, "email"), ({"event_id": "\x00"}, "event_id")],
)
def test_filter_that_makes_no_sense_is_refused(query: dict[str, str], path: str) -> None:
    response = get(**query)
    assert response.status_code == 400
    assert response.json()["details"][0]["path"] == path


def test_one_message_comes_with_its_attempts() -> None:
    message = MessageFactory(state="retry")
    body = get(f"{URL}/{message.pk}").json()
    assert [(a["number"], a["verdict"]) for a in body["attempt_log"]] == [(1, "retry")]


def test_unknown_message_is_a_404_in_the_common_shape() -> None:
    response = get(f"{URL}/00000000-0000-7000-8000-000000000000")
    assert response.status_code == 404
    assert set(response.json()) == {"code", "message", "details"}


def test_key_without_the_scope_reads_nothing() -> None:
    assert get(scopes=[Scope.EVENTS_WRITE]).status_code == 403
    assert Client().get(URL).status_code == 401


def test_number_of_queries_is_the_same_for_1_and_3_messages() -> None:
    _, token = make_api_key()
    headers = {"Authorization": f"Bearer {token}"}
    Client().get(URL, headers=headers)
    counts = []
    for _ in range(2):
        MessageFactory()
        with CaptureQueriesContext(connection) as queries:
            Client().get(URL, headers=headers)
        counts.append(len(queries))
        MessageFactory()
    assert counts[0] == counts[1]

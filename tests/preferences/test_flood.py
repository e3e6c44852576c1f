"""One link, used far more often than a person does."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from redis.exceptions import ConnectionError as RedisGone

from contacts.models import Consent, Contact
from delivery.links import CONFIRM, PERSONAL_DATA, PREFERENCES, UNSUBSCRIBE, VIEW
from delivery.models import Message
from preferences import flood
from suppression.models import Suppression
from tests.factories import MessageFactory, TopicFactory
from tests.preferences.pages import assert_private, get, post

pytestmark = pytest.mark.django_db

MOST = int(flood.ACTS[1])
LOOKS = int(flood.LOOKS[1])
SAVE = {"form": "preferences", "topic": ["news"]}


@pytest.fixture(params=["redis", "without redis"], autouse=True)
def _redis(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*args: object, **options: object) -> None:
        raise RedisGone

    # Nothing comes back while a test runs, however slow the machine.
    monkeypatch.setattr(flood, "ACTS", (1 / 3600, float(MOST)))
    monkeypatch.setattr(flood, "LOOKS", (1 / 3600, float(LOOKS)))
    if request.param != "redis":
        monkeypatch.setattr(flood, "draw", gone)


@pytest.fixture
def message() -> Message:
    return MessageFactory(stream="marketing", topic=TopicFactory(key="news"), state="sent")


@pytest.mark.parametrize("purpose", [PREFERENCES, CONFIRM, PERSONAL_DATA, UNSUBSCRIBE])
def test_forms_are_refused_after_so_many_with_the_time_to_wait(
    message: Message, purpose: str
) -> None:
    answers = [post(message, purpose, SAVE) for _ in range(MOST + 1)]
    assert [a.status_code for a in answers].count(429) == 1
    assert answers[-1].status_code == 429
    assert 1 <= int(answers[-1]["Retry-After"]) <= 3600
    assert_private(answers[-1])
    assert get(message, purpose).status_code in (200, 410)


def test_toggling_for_ever_does_not_fill_the_ledger(message: Message) -> None:
    for n in range(3 * MOST):
        post(message, PREFERENCES, {"form": "preferences", "topic": ["news"] if n % 2 else []})
    assert Consent.objects.count() == MOST


def test_looking_is_refused_before_the_database_is_asked(message: Message) -> None:
    for _ in range(LOOKS):
        assert get(message, VIEW).status_code in (200, 404)
    with CaptureQueriesContext(connection) as queries:
        response = get(message, VIEW)
    assert (response.status_code, len(queries)) == (429, 0)
    assert 1 <= int(response["Retry-After"]) <= 3600


@pytest.mark.parametrize("data", [{"List-Unsubscribe": "One-Click"}, {"scope": "topic"}])
def test_first_unsubscribe_is_heard_whatever_else_came(
    message: Message, data: dict[str, str]
) -> None:
    for _ in range(MOST + 5):
        post(message, UNSUBSCRIBE, {"junk": "1"})
    assert post(message, UNSUBSCRIBE, data).status_code == 200
    assert Suppression.objects.count() == 1
    assert post(message, UNSUBSCRIBE, data).status_code == 429


def test_first_no_to_everything_is_heard_whatever_else_came(message: Message) -> None:
    for _ in range(MOST + 5):
        post(message, PREFERENCES, SAVE)
    assert post(message, PREFERENCES, {"stop": "all"}).status_code == 200
    assert Contact.objects.get().objected_at is not None
    assert post(message, PREFERENCES, {"stop": "all"}).status_code == 429


def test_other_link_of_the_same_person_is_another_link(message: Message) -> None:
    other = MessageFactory(contact=message.contact, stream="marketing", topic=message.topic)
    for _ in range(MOST + 1):
        post(message, PREFERENCES, SAVE)
    assert post(other, PREFERENCES, SAVE).status_code == 200

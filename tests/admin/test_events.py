"""Events, event types and API keys in the admin."""

import re

from django.test import Client
from django.urls import reverse

from events.auth import find_key
from events.models import ApiKey, EventType
from events.states import EventState
from tests.factories import EventFactory, EventTypeFactory, make_api_key

KEY = {"name": "Shop", "source": "shop", "scopes": ["events:write"]}


def test_dead_event_is_replayed(operator: Client) -> None:
    event = EventFactory(state=EventState.DEAD, attempts=5, error="boom")
    url = reverse("admin:events_event_do", args=[event.pk, "replay"])
    operator.post(url, {"confirmed": "yes"})
    event.refresh_from_db()
    assert (event.state, event.attempts) == (EventState.PENDING, 0)


def test_search_finds_an_event_by_its_id_and_its_user(operator: Client) -> None:
    EventFactory(event_id="order-7", user_id="u-1")
    EventFactory(event_id="order-8", user_id="u-2")
    url = reverse("admin:events_event_changelist")
    for term in ("order-7", "u-1"):
        page = operator.get(url, {"q": term}).text
        assert "order-7" in page
        assert "order-8" not in page


def test_type_filter_offers_the_types_in_use(operator: Client) -> None:
    for name in ("B", "A", "A"):
        EventFactory(type=f"Type{name}")
    page = operator.get(reverse("admin:events_event_changelist")).text
    assert page.index("?type=TypeA") < page.index("?type=TypeB")
    assert page.count("?type=TypeA") == 1


def test_new_api_key_is_shown_once_and_works(operator: Client) -> None:
    response = operator.post(reverse("admin:events_apikey_add"), KEY)
    key = ApiKey.objects.get()
    shown = re.search(rf"{ApiKey.PREFIX}{key.prefix}_\w+", response.text)
    assert shown is not None
    token = shown[0]
    assert find_key(token) == key
    assert "no-store" in response["Cache-Control"]
    assert token not in str(operator.cookies)
    for url in ("changelist", "change"):
        args = [key.pk] if url == "change" else []
        assert token not in operator.get(reverse(f"admin:events_apikey_{url}", args=args)).text


def test_revoked_key_is_refused(operator: Client) -> None:
    key, token = make_api_key()
    url = reverse("admin:events_apikey_do", args=[key.pk, "revoke"])
    operator.post(url, {"confirmed": "yes"})
    assert find_key(token) is None


def test_api_key_needs_a_known_scope(operator: Client) -> None:
    operator.post(reverse("admin:events_apikey_add"), {**KEY, "scopes": ["admin:all"]})
    assert not ApiKey.objects.exists()


def test_event_type_keeps_its_name_and_takes_paths_one_by_one(operator: Client) -> None:
    event_type = EventTypeFactory(name="OrderCompleted")
    form = {
        "name": "Renamed",
        "user_id_paths": ["user_id", "payload.customer.id"],
        "email_paths": ["payload.email"],
        "profile_paths": '{"plan": ["payload.plan"]}',
    }
    operator.post(reverse("admin:events_eventtype_change", args=[event_type.pk]), form)
    event_type = EventType.objects.get()
    assert event_type.name == "OrderCompleted"
    assert event_type.user_id_paths == ["user_id", "payload.customer.id"]
    assert event_type.profile_paths == {"plan": ["payload.plan"]}


def test_event_type_refuses_a_profile_of_another_shape(operator: Client) -> None:
    form = {"name": "X", "user_id_paths": ["user_id"], "profile_paths": '{"plan": "payload.plan"}'}
    page = operator.post(reverse("admin:events_eventtype_add"), form).text
    assert "An object of lists" in page

"""Events, event types and API keys in the admin."""

import html
import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from events.auth import find_key
from events.models import ApiKey, Event, EventType, Rejection, SeenType
from events.states import EventState, IgnoredReason, RefusalCode, RejectionState
from tests.factories import EventFactory, EventTypeFactory, event_document, make_api_key

KEY = {"name": "Shop", "source": "shop", "scopes": ["events:write"], "rate_limit": "250"}


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
    event_type = EventType.objects.get(pk=event_type.pk)
    assert event_type.name == "OrderCompleted"
    assert event_type.user_id_paths == ["user_id", "payload.customer.id"]
    assert event_type.profile_paths == {"plan": ["payload.plan"]}


def test_event_type_refuses_a_profile_of_another_shape(operator: Client) -> None:
    form = {"name": "X", "user_id_paths": ["user_id"], "profile_paths": '{"plan": "payload.plan"}'}
    page = operator.post(reverse("admin:events_eventtype_add"), form).text
    assert "An object of lists" in page


# Schemas

ORDER = {"type": "object", "required": ["total"], "properties": {"total": {"type": "number"}}}


def _save(operator: Client, event_type: EventType, schema: Any, **more: str) -> Any:
    url = reverse("admin:events_eventtype_change", args=[event_type.pk])
    text = schema if isinstance(schema, str) else json.dumps(schema)
    form = {"user_id_paths": ["user_id"], "profile_paths": "{}", "schema": text, **more}
    return operator.post(url, form)


def _schema(event_type: EventType) -> Any:
    event_type.refresh_from_db()
    return event_type.schema


def test_schema_is_saved_and_shown_indented(operator: Client) -> None:
    event_type = EventTypeFactory()
    assert _save(operator, event_type, ORDER).status_code == 302
    assert _schema(event_type) == ORDER
    page = operator.get(reverse("admin:events_eventtype_change", args=[event_type.pk])).text
    assert json.dumps(ORDER, indent=2) in html.unescape(page)
    assert "has a schema" in operator.get(reverse("admin:events_eventtype_changelist")).text


def test_schema_can_be_taken_away(operator: Client) -> None:
    event_type = EventTypeFactory(schema=ORDER)
    EventFactory(payload={})
    assert _save(operator, event_type, "").status_code == 302
    assert _schema(event_type) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{\n  "type": "object",\n  oops\n}', "in line 3"),
        ('{"type": "object", "type": "object"}', "stands twice"),
        ('{"minimum": NaN}', "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "must be an object"),
        ('{"type": "object", "properties": {"a": {"type": "strin"}}}', "/properties/a/type: "),
        ('{"type": "object", "$ref": "http://127.0.0.1/"}', "/$ref: "),
    ],
)
def test_wrong_schema_is_refused_with_its_place_and_kept_as_typed(
    operator: Client, text: str, said: str
) -> None:
    event_type = EventTypeFactory(schema=ORDER)
    response = _save(operator, event_type, text)
    assert response.status_code == 200
    page = html.unescape(response.text)
    assert said in page
    assert text in page
    assert _schema(event_type) == ORDER


def test_schema_that_stored_events_do_not_fit_is_refused_with_some_of_them(
    operator: Client,
) -> None:
    event_type = EventTypeFactory()
    for n in range(8):
        EventFactory(event_id=f"bad-{n}", payload={})
    EventFactory(payload={"total": 1})
    EventFactory(type="Another", event_id="another", payload={})
    page = _save(operator, event_type, ORDER).text
    assert "8 of the last 9 stored events would fail." in page
    assert page.count("bad-") == 5
    assert "/total" in page
    assert "another" not in page
    assert _schema(event_type) == {}


def test_schema_is_saved_all_the_same_when_the_box_is_ticked(operator: Client) -> None:
    event_type = EventTypeFactory()
    EventFactory(payload={})
    page = _save(operator, event_type, ORDER).text
    box = re.search(r'<input type="checkbox" name="(\w+)" value="(\w+)"> Save all', page)
    assert box is not None
    assert _save(operator, event_type, ORDER, **{box[1]: box[2]}).status_code == 302
    assert _schema(event_type) == ORDER


def test_unchanged_schema_is_not_held_against_stored_events(operator: Client) -> None:
    event_type = EventTypeFactory(schema=ORDER)
    EventFactory(payload={})
    assert _save(operator, event_type, json.dumps(ORDER, indent=4)).status_code == 302


def test_only_the_last_thousand_events_are_held_against_a_schema(operator: Client) -> None:
    event_type = EventTypeFactory()
    for total in (None, *range(1_000)):
        EventFactory(payload={"total": total})
    assert _save(operator, event_type, ORDER).status_code == 302


def test_suggestion_fills_the_form_and_saves_nothing(operator: Client) -> None:
    event_type = EventTypeFactory(schema=ORDER)
    EventFactory(payload={"email": "ada@example.com"})
    url = reverse("admin:events_eventtype_change", args=[event_type.pk])
    assert "?suggest=1" in operator.get(url).text
    page = html.unescape(operator.get(url, {"suggest": "1"}).text)
    suggested = {
        "type": "object",
        "required": ["email"],
        "properties": {"email": {"type": "string", "format": "email", "x-pii": True}},
    }
    assert json.dumps(suggested, indent=2) in page
    assert _schema(event_type) == ORDER


@pytest.mark.django_db
def test_suggestion_is_for_those_who_may_see_events() -> None:
    author = User.objects.create_user("author", is_staff=True)
    author.user_permissions.set(
        Permission.objects.filter(codename__in=("view_eventtype", "change_eventtype"))
    )
    client = Client()
    client.force_login(author)
    event_type = EventTypeFactory(schema=ORDER)
    EventFactory(payload={"secret_habit": "x"})
    url = reverse("admin:events_eventtype_change", args=[event_type.pk])
    page = client.get(url, {"suggest": "1"})
    assert page.status_code == 200
    assert "secret_habit" not in page.text


def test_type_without_events_has_nothing_to_suggest_from(operator: Client) -> None:
    event_type = EventTypeFactory()
    url = reverse("admin:events_eventtype_change", args=[event_type.pk])
    assert "?suggest=1" not in operator.get(url).text


def test_names_nobody_registered_are_listed_and_registered_in_one_go(operator: Client) -> None:
    EventTypeFactory(name="Known")
    for source, name in (("shop", "Seen & new"), ("app", "Seen & new"), ("shop", "Known")):
        SeenType.objects.create(source=source, name=name)
    EventFactory(type="Seen & new", payload={"total": 1})
    page = operator.get(reverse("admin:events_eventtype_changelist")).text
    link = re.search(r'href="([^"]+)">Register<', page)
    assert link is not None
    assert page.count(">Register<") == 1
    assert "app, shop" in page
    form = html.unescape(operator.get(html.unescape(link[1])).text)
    assert 'value="Seen & new"' in form
    assert json.dumps({"type": "integer"}, indent=2).replace("\n", "\n    ") in form
    assert not EventType.objects.filter(name="Seen & new").exists()


def test_registering_a_name_that_cannot_be_stored_answers(operator: Client) -> None:
    assert operator.get(reverse("admin:events_eventtype_add"), {"name": "\x00"}).status_code == 200


def test_marked_fields_are_listed_and_sensitive_values_are_hidden(operator: Client) -> None:
    marked = {"properties": {"card": {"x-sensitive": True}, "email": {"x-pii": True}}}
    event_type = EventTypeFactory(schema={"type": "object", **marked})
    payload = {"card": "4111-1111", "email": "ada@example.com"}
    event = EventFactory(payload=payload)
    rejection = _rejection(body={"event_id": "e1", "payload": payload})
    for row, model in ((event, "event"), (rejection, "rejection")):
        page = operator.get(reverse(f"admin:events_{model}_change", args=[row.pk])).text
        assert "4111-1111" not in page
        assert "ada@example.com" in page
    page = operator.get(reverse("admin:events_eventtype_change", args=[event_type.pk])).text
    assert "/card" in page
    assert "/email" in page


# Dead and refused events


def _rejection(**fields: Any) -> Rejection:
    values = {
        "source": "shop",
        "event_id": f"e{Rejection.objects.count()}",
        "type": "UserSignedUp",
        "code": RefusalCode.SCHEMA,
        "problems": [{"path": "/total", "message": "is required"}],
        **fields,
    }
    return Rejection.objects.create(**values)


def _on_list(operator: Client, model: str, name: str, *rows: Any, **form: str) -> Any:
    url = reverse(f"admin:events_{model}_changelist")
    selected = {"action": name, "_selected_action": [row.pk for row in rows]}
    return operator.post(url, {**selected, "confirmed": "yes", **form}, follow=True)


def test_dead_events_are_replayed_from_the_list(operator: Client) -> None:
    rows = [EventFactory(state=EventState.DEAD) for _ in range(3)]
    assert "2 events are pending again." in _on_list(operator, "event", "replay", *rows[:2]).text
    assert Event.objects.filter(state=EventState.DEAD).get() == rows[2]


def test_dead_events_are_discarded_from_the_list_with_a_reason(operator: Client) -> None:
    rows = [EventFactory(state=EventState.DEAD) for _ in range(2)]
    page = _on_list(operator, "event", "discard", *rows)
    assert "This field is required" in page.text
    assert Event.objects.filter(state=EventState.DEAD).count() == 2
    page = _on_list(operator, "event", "discard", *rows, note="A load test")
    assert "2 events discarded." in page.text
    shown = operator.get(reverse("admin:events_event_change", args=[rows[0].pk])).text
    assert "A load test" in shown
    assert "Somebody discarded it" in shown


def test_event_page_says_what_the_clock_of_its_producer_said(operator: Client) -> None:
    stated = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
    counted = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    event = EventFactory(stated_at=stated, occurred_at=counted)
    page = operator.get(reverse("admin:events_event_change", args=[event.pk])).text
    assert "2031-05-06 07:08:09 UTC; counted as 2026-01-02 03:04:05 UTC" in page


def test_late_event_says_so(operator: Client) -> None:
    event = EventFactory(state=EventState.IGNORED, reason=IgnoredReason.LATE)
    page = operator.get(reverse("admin:events_event_change", args=[event.pk])).text
    assert "It came too late to start anything; the person was updated." in page


def test_refused_event_is_replayed_from_its_page(operator: Client) -> None:
    rejection = _rejection(body=event_document("e1"))
    url = reverse("admin:events_rejection_do", args=[rejection.pk, "replay"])
    page = operator.post(url, {"confirmed": "yes"}, follow=True).text
    assert "1 event was let in." in page
    assert Event.objects.get().event_id == "e1"


def test_refused_events_that_are_refused_again_are_counted(operator: Client) -> None:
    rows = [_rejection(body=event_document("e1")), _rejection(body={})]
    page = _on_list(operator, "rejection", "replay", *rows).text
    assert "1 event was let in. 1 event was refused again; its page says why." in page


def test_refused_event_whose_content_was_not_kept_offers_no_replay(operator: Client) -> None:
    rejection = _rejection()
    page = operator.get(reverse("admin:events_rejection_change", args=[rejection.pk])).text
    assert "do/replay" not in page
    assert "do/discard" in page
    said = _on_list(operator, "rejection", "replay", rejection).text
    assert "Nothing was changed" in said


def test_refused_events_are_discarded_from_the_list(operator: Client) -> None:
    rows = [_rejection(), _rejection()]
    page = _on_list(operator, "rejection", "discard", *rows, note="A load test").text
    assert "2 events discarded." in page
    assert not Rejection.objects.filter(state=RejectionState.OPEN).exists()


def test_refused_events_are_filtered_and_searched(operator: Client) -> None:
    _rejection(event_id="by-schema")
    _rejection(event_id="by-name", code=RefusalCode.UNREGISTERED)
    _rejection(event_id="gone", state=RejectionState.DISCARDED)
    url = reverse("admin:events_rejection_changelist")
    for query, expected in (
        ({"code__exact": "unregistered"}, {"by-name"}),
        ({"state__exact": "discarded"}, {"gone"}),
        ({"q": "by-schema"}, {"by-schema"}),
        ({"source": "shop"}, {"by-schema", "by-name", "gone"}),
    ):
        page = operator.get(url, query).text
        assert {
            name for name in ("by-schema", "by-name", "gone") if f">{name}<" in page
        } == expected


def test_event_of_a_region_that_may_not_be_held_shows_id_and_reason_only(operator: Client) -> None:
    rejection = _rejection(
        event_id="far-1",
        type="",
        code=RefusalCode.RESIDENCY,
        problems=[{"path": "metadata.region", "message": "may not be held here"}],
    )
    page = operator.get(reverse("admin:events_rejection_change", args=[rejection.pk])).text
    assert "far-1" in page
    assert "It may not be held in this region." in page
    assert "What was posted" not in page

"""Segment's calls: read without a server first, then as a library meets them over HTTP."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from django.conf import settings
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from common.api import ApiError
from common.clock import from_iso8601, now
from contacts.services import Identity, identify
from events import segment
from events.admission import admit
from events.dead_letters import replay_rejections
from events.directory import Producer, Rules
from events.exchange import Post, Reading
from events.models import Event, Rejection, unregistered_type
from events.native import parse_event
from events.states import RefusalCode
from events.wire import MAX_BYTES, EventIn, Item, Problem, Recorded, Refusal
from tests.factories import ContactFactory, make_api_key

RECEIVED = datetime(2026, 11, 22, 4, 9, 30, tzinfo=UTC)
SHOP = Producer(key="k", source="shop", scopes=frozenset({"events:write"}), rate_limit=0)


def call(**fields: Any) -> dict[str, Any]:
    """A well-formed call of a batch."""
    return {
        "type": "track",
        "event": "Order Completed",
        "messageId": "m-1",
        "userId": "u-1",
        "timestamp": "2026-11-22T04:09:24.454Z",
        "properties": {"total": 12.5},
        **fields,
    }


def post_of(path: str, document: Any, **fields: Any) -> Post:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Post(path, {}, raw, fields.get("received_at", RECEIVED))


def items(*calls: Any, **frame: Any) -> list[Item]:
    return list(segment.read(post_of("batch", {"batch": list(calls), **frame}), SHOP).items)


def event(document: Any, **frame: Any) -> EventIn:
    (item,) = items(document, **frame)
    assert isinstance(item, EventIn), item
    return item


def refusal(document: Any, **frame: Any) -> Refusal:
    (item,) = items(document, **frame)
    assert isinstance(item, Refusal), item
    return item


def person(found: EventIn) -> Identity:
    """Whom the engine finds in the event of a type nobody has registered."""
    default = unregistered_type(found.type, found.payload)
    return identify(
        {"user_id": found.user_id, "payload": found.payload, "metadata": found.metadata},
        user_id_paths=default.user_id_paths,
        email_paths=default.email_paths,
        profile_paths=default.profile_paths,
    )


def test_track_is_an_event_of_its_own_name() -> None:
    found = event(call(context={"ip": "203.0.113.9"}, anonymousId="a-1", channel="server"))
    assert (found.source, found.event_id, found.type, found.user_id) == (
        "shop",
        "m-1",
        "Order Completed",
        "u-1",
    )
    assert found.occurred_at == datetime(2026, 11, 22, 4, 9, 24, 454_000, tzinfo=UTC)
    assert found.stated_at is None
    assert found.payload == {"total": 12.5}
    assert found.metadata == {
        "context": {"ip": "203.0.113.9"},
        "anonymousId": "a-1",
        "channel": "server",
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"traits": {"email": "ada@example.com", "name": "Ada", "plan": "pro"}},
        {"context": {"traits": {"email": "ada@example.com", "name": "Ada", "plan": "pro"}}},
        {
            "traits": {"email": "ada@example.com", "plan": "pro"},
            "context": {"traits": {"email": "old@example.com", "name": "Ada"}},
        },
        {"traits": {"email": "ada@example.com", "firstName": "Ada", "plan": "pro"}},
    ],
)
def test_identify_names_its_person_wherever_the_traits_are(fields: dict[str, Any]) -> None:
    found = event(call(type="identify", event=None, properties=None, **fields))
    assert found.type == "identify"
    assert found.payload["plan"] == "pro"
    who = person(found)
    assert who.user_id == "u-1"
    assert who.address is not None
    assert who.address.email == "ada@example.com"
    assert (who.profile["name"], who.profile["plan"]) == ("Ada", "pro")


def test_identify_makes_one_name_of_two() -> None:
    traits = {"firstName": "Ada", "lastName": "Lovelace"}
    assert event(call(type="identify", traits=traits)).payload["name"] == "Ada Lovelace"


def test_track_finds_the_address_in_the_traits_of_its_context() -> None:
    who = person(event(call(context={"traits": {"email": "ada@example.com"}})))
    assert who.address is not None
    assert who.address.email == "ada@example.com"


@pytest.mark.parametrize("kind", ["page", "screen"])
@pytest.mark.parametrize(
    "fields",
    [
        {"name": "Pricing", "category": "Docs", "properties": {"url": "/pricing"}},
        {"properties": {"name": "Pricing", "category": "Docs", "url": "/pricing"}},
    ],
)
def test_page_keeps_its_name_and_renames_nobody(kind: str, fields: dict[str, Any]) -> None:
    found = event(call(type=kind, **fields))
    assert found.type == kind
    assert found.payload == {f"{kind}_name": "Pricing", "category": "Docs", "url": "/pricing"}
    assert person(found).profile == {}


def test_group_is_not_taken_for_a_person() -> None:
    traits = {"name": "Initech", "email": "office@example.com"}
    found = event(call(type="group", groupId=7, traits=traits))
    assert (found.type, found.payload) == ("group", {"groupId": "7", "traits": traits})
    assert (person(found).profile, person(found).address) == ({}, None)


def test_alias_says_who_somebody_was() -> None:
    found = event(call(type="alias", previousId="a-1"))
    assert (found.type, found.user_id, found.payload) == ("alias", "u-1", {"previousId": "a-1"})


@pytest.mark.parametrize(("short", "kind"), [("i", "identify"), ("p", "page"), ("s", "screen")])
def test_short_path_is_the_call_of_that_letter(short: str, kind: str) -> None:
    document = call(type=None)
    (item,) = segment.read(post_of(short, document), SHOP).items
    assert item.type == kind
    assert segment.read(post_of("b", {"batch": [document | {"type": kind}]}), SHOP).items == [item]


def test_path_says_the_kind_of_a_single_call() -> None:
    (item,) = segment.read(post_of("identify", call(type="track", sentAt=None)), SHOP).items
    assert item.type == "identify"


@pytest.mark.parametrize("path", ["", "import", "batch/track", "TRACK"])
def test_path_that_is_no_call_is_not_found(path: str) -> None:
    with pytest.raises(ApiError) as refused:
        segment.read(post_of(path, call()), SHOP)
    assert refused.value.status_code == 404


def test_null_is_the_same_as_nothing() -> None:
    bare = {"type": "track", "event": "Seen", "messageId": "m-1", "userId": "u-1"}
    empty = dict.fromkeys(
        ["anonymousId", "properties", "context", "integrations", "timestamp", "traits", "channel"]
    )
    assert event({**empty, **bare}, sentAt=None, context=None) == event(bare)


def test_number_is_an_id_as_text() -> None:
    found = event(call(userId=17, messageId=18))
    assert (found.user_id, found.event_id) == ("17", "18")


def test_call_without_an_id_is_given_one_of_its_own() -> None:
    one, other = items(call(messageId=None), call(messageId=" "))
    assert [UUID(item.event_id).version for item in (one, other)] == [7, 7]
    assert one.event_id != other.event_id


def test_anonymous_person_is_enough() -> None:
    found = event(call(userId=None, anonymousId="a-1"))
    assert (found.user_id, found.metadata["anonymousId"]) == ("", "a-1")


@pytest.mark.parametrize(
    ("timestamp", "sent_at", "occurred_at"),
    [
        ("2026-11-22T04:09:24Z", "2026-11-22T04:09:30Z", "2026-11-22T04:09:24Z"),
        ("2026-11-22T04:09:19Z", "2026-11-22T04:09:25Z", "2026-11-22T04:09:24Z"),
        ("2026-11-22T14:09:24Z", "2026-11-22T14:09:30Z", "2026-11-22T04:09:24Z"),
        ("2026-11-21T18:09:24Z", "2026-11-21T18:09:30Z", "2026-11-22T04:09:24Z"),
        # From here on the sender's clock says nothing, and the event's time is taken as it is.
        ("2026-11-22T04:09:24Z", "2026-11-23T04:09:31Z", "2026-11-22T04:09:24Z"),
        ("2026-11-22T04:09:24Z", "1970-01-01T00:00:00Z", "2026-11-22T04:09:24Z"),
        ("2026-11-22T04:09:24Z", "9999-12-31T23:59:59Z", "2026-11-22T04:09:24Z"),
        ("2026-11-22T04:09:24Z", "yesterday", "2026-11-22T04:09:24Z"),
        ("2026-11-22T04:09:24Z", 1_790_000_000_000, "2026-11-22T04:09:24Z"),
        ("2026-11-22T04:09:24Z", None, "2026-11-22T04:09:24Z"),
    ],
)
def test_clock_of_the_sender_is_corrected_as_far_as_it_can_be_believed(
    timestamp: str, sent_at: Any, occurred_at: str
) -> None:
    found = event(call(timestamp=timestamp), sentAt=sent_at)
    assert found.occurred_at == from_iso8601(occurred_at)
    said = from_iso8601(timestamp)
    assert found.stated_at == (None if found.occurred_at == said else said)


def test_call_without_a_time_is_one_of_now() -> None:
    found = event(call(timestamp=None), sentAt="2026-11-22T05:09:30Z")
    assert (found.occurred_at, found.stated_at) == (RECEIVED, None)
    older = call(timestamp=None, originalTimestamp="2026-11-22T04:00:00Z")
    assert event(older).occurred_at == RECEIVED - timedelta(minutes=9, seconds=30)


def test_call_of_the_future_is_one_of_now() -> None:
    found = event(call(timestamp="2026-12-24T00:00:00Z"))
    assert (found.occurred_at, found.stated_at) == (RECEIVED, datetime(2026, 12, 24, tzinfo=UTC))


def test_retry_has_the_same_hash_and_another_content_has_not() -> None:
    first = event(call(), sentAt="2026-11-22T04:09:25Z", writeKey="k")
    again = event(
        dict(reversed(call(integrations={"All": True}).items())), sentAt="2026-11-22T04:19:25Z"
    )
    other = event(call(properties={"total": 12.6}))
    assert first.body_hash == again.body_hash != other.body_hash


def test_context_of_the_batch_is_that_of_its_calls() -> None:
    one, other = items(
        call(context={"ip": "203.0.113.9"}), call(), context={"ip": "203.0.113.1", "locale": "de"}
    )
    assert isinstance(one, EventIn)
    assert isinstance(other, EventIn)
    assert one.metadata["context"] == {"ip": "203.0.113.9", "locale": "de"}
    assert other.metadata["context"] == {"ip": "203.0.113.1", "locale": "de"}


def test_region_of_the_context_is_where_the_intake_looks() -> None:
    assert event(call(context={"region": "eu-west-1"})).metadata["region"] == "eu-west-1"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"writeKey": "wk", "batch": []}', "wk"),
        (b'{"batch": [{"writeKey": "wk"}]}', ""),
        (b'{"writeKey": null}', ""),
        (b'{"writeKey": 7}', ""),
        (b"[]", ""),
        (b"", ""),
        (b'{"writeKey": "\xff"}', ""),
        (b"[" * 100_000, ""),
    ],
)
def test_token_is_the_write_key_of_the_body(body: bytes, found: str) -> None:
    assert segment.token(post_of("batch", body)) == found


def test_write_key_is_never_kept() -> None:
    good, bad = call(writeKey="wk-secret"), call(writeKey="wk-secret", type="nonsense")
    single = segment.read(post_of("track", good), SHOP).items
    kept = [*items(good, bad, writeKey="wk-secret"), *single]
    assert "wk-secret" not in str(kept)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"type": None}, "type"),
        ({"type": "nonsense"}, "type"),
        ({"type": ["track"]}, "type"),
        ({"event": None}, "event"),
        ({"event": ""}, "event"),
        ({"event": "x" * 201}, "event"),
        ({"event": {"name": "x"}}, "event"),
        ({"messageId": "x" * 201}, "messageId"),
        ({"messageId": "a\nb"}, "messageId"),
        ({"messageId": True}, "messageId"),
        ({"userId": None}, "userId"),
        ({"userId": ""}, "userId"),
        ({"userId": True}, "userId"),
        ({"userId": "x" * 201}, "userId"),
        ({"timestamp": "tomorrow"}, "timestamp"),
        ({"timestamp": 1_790_000_000_000}, "timestamp"),
        ({"timestamp": "1969-12-31T23:59:59Z"}, "timestamp"),
        ({"properties": []}, "properties"),
        ({"properties": "x"}, "properties"),
        ({"properties": {"a": {"": 1}}}, "properties.a"),
        ({"properties": {"a": 10**22}}, "properties.a"),
        ({"context": {"page": {"x" * 101: 1}}}, "context.page." + "x" * 20 + "…"),
        ({"type": "identify", "traits": "x"}, "traits"),
        ({"type": "identify", "traits": {"a": 10**22}}, "traits.a"),
        ({"type": "group"}, "groupId"),
        ({"type": "alias"}, "previousId"),
    ],
)
def test_wrong_call_is_refused_with_its_path_and_spares_its_neighbours(
    change: dict[str, Any], path: str
) -> None:
    before, refused, after = items(
        call(messageId="before"), call(**change), call(messageId="after")
    )
    assert isinstance(before, EventIn)
    assert isinstance(after, EventIn)
    assert isinstance(refused, Refusal)
    assert (refused.code, refused.source) == (RefusalCode.INVALID, "shop")
    assert [problem.path for problem in refused.problems] == [path]
    assert refused.body is not None


def test_item_that_is_no_object_is_refused() -> None:
    refused = items(7, None, "x", [])
    assert [item.body for item in refused if isinstance(item, Refusal)] == [None] * 4


def test_body_of_a_refusal_is_the_native_event_that_was_meant() -> None:
    kept = refusal(call(userId=None, context={"region": "eu-west-1"}, anonymousId=""))
    assert kept.body == {
        "event_id": "m-1",
        "event_type": "Order Completed",
        "user_id": "",
        "timestamp": 1795320564454,
        "payload": {"total": 12.5},
        "metadata": {
            "region": "eu-west-1",
            "context": {"region": "eu-west-1"},
            "anonymousId": "",
        },
    }
    replayed = parse_event(kept.body, source="shop", received_at=RECEIVED)
    assert isinstance(replayed, EventIn)
    assert (replayed.key, replayed.type) == (("shop", "m-1"), "Order Completed")


def test_what_was_not_understood_stays_in_the_body_and_cannot_be_replayed_as_half_an_event() -> (
    None
):
    body = refusal(call(properties="x", timestamp="tomorrow", type="track")).body
    assert body is not None
    assert body["metadata"] == {"properties": "x", "timestamp": "tomorrow"}
    assert "payload" not in body
    unknown = refusal(call(type="nonsense")).body
    assert unknown is not None
    assert (unknown["event_type"], unknown["metadata"]["type"]) == ("", "nonsense")
    assert unknown["metadata"]["properties"] == {"total": 12.5}
    for kept in (body, unknown):
        assert isinstance(parse_event(kept, source="shop", received_at=RECEIVED), Refusal)


def test_call_larger_than_an_event_is_refused_and_remembered_without_its_content() -> None:
    text = {f"k{n}": "x" * 30_000 for n in range(10)}
    assert MAX_BYTES < 10 * 30_000
    kept = refusal(call(properties=text, context={"region": "eu-west-1"}))
    assert kept.body is not None
    assert kept.body["metadata"] == {"region": "eu-west-1"}
    assert "payload" not in kept.body
    assert isinstance(parse_event(kept.body, source="shop", received_at=RECEIVED), Refusal)


def test_call_beyond_segments_own_32_kb_is_taken() -> None:
    assert len(event(call(properties={f"k{n}": "x" * 1000 for n in range(150)})).payload) == 150


@pytest.mark.parametrize(
    ("path", "document", "status", "where"),
    [
        ("batch", {}, 400, "batch"),
        ("batch", {"batch": {"0": {}}}, 400, "batch"),
        ("batch", {"batch": None}, 400, "batch"),
        ("batch", [], 400, None),
        ("track", "x", 400, None),
        ("track", b"{", 400, None),
        ("batch", {"batch": [{}] * 1_001}, 413, None),
    ],
)
def test_request_that_is_no_call_is_refused_whole(
    path: str, document: Any, status: int, where: str | None
) -> None:
    with pytest.raises(ApiError) as refused:
        segment.read(post_of(path, document), SHOP)
    assert refused.value.status_code == status
    assert [detail["path"] for detail in refused.value.details] == ([where] if where else [])


def test_empty_batch_is_fine() -> None:
    reading = segment.read(post_of("batch", {"batch": []}), SHOP)
    assert reading.answer(reading.items, []).status == 200


def test_answer_lists_what_was_rejected_and_calls_a_known_id_a_success() -> None:
    reading = segment.read(
        post_of("batch", {"batch": [call(), call(messageId="m-2"), call(event=None)]}), SHOP
    )
    rejected = reading.items[2]
    assert isinstance(rejected, Refusal)
    outcomes = [Recorded.DUPLICATE, Recorded.CONFLICT, rejected]
    reply = reading.answer(reading.items, outcomes)
    assert (reply.status, json.loads(reply.body)) == (
        200,
        {
            "success": True,
            "rejected": [
                {
                    "index": 2,
                    "messageId": "m-1",
                    "code": "invalid",
                    "message": "batch.2.event: is required",
                    "details": [{"path": "batch.2.event", "message": "is required"}],
                }
            ],
        },
    )


def test_event_refused_by_its_schema_is_kept_and_one_of_a_foreign_region_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure_residency(monkeypatch, regions=["eu-*"])
    reading = segment.read(
        post_of("batch", {"batch": [call(), call(context={"region": "us-east-1"})]}), SHOP
    )
    rules = Rules(schemas={"Order Completed": lambda _payload: [Problem("/total", "is low")]})
    schema, region = admit(reading.items, rules, keeps_refused=reading.keeps_refused)
    assert isinstance(schema, Refusal)
    assert isinstance(region, Refusal)
    assert schema.code is RefusalCode.SCHEMA
    assert schema.body is not None
    assert (schema.body["event_id"], schema.body["payload"]) == ("m-1", {"total": 12.5})
    assert (region.code, region.body) == (RefusalCode.RESIDENCY, None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)
any_calls = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["track", "identify", "page", "screen", "group", "alias", "x"]),
        "event": json_values,
        "messageId": st.text() | json_values,
        "userId": st.text() | json_values,
        "anonymousId": json_values,
        "groupId": json_values,
        "previousId": json_values,
        "properties": st.dictionaries(st.text(), json_values) | json_values,
        "traits": st.dictionaries(st.text(), json_values) | json_values,
        "context": st.dictionaries(st.sampled_from(["traits", "region"]), json_values)
        | json_values,
        "timestamp": st.datetimes().map(datetime.isoformat) | json_values,
    },
)


@given(st.lists(any_calls | json_values, max_size=4), st.text() | st.datetimes().map(str))
def test_any_batch_becomes_events_and_refusals_that_can_be_stored(
    calls: list[Any], sent_at: str
) -> None:
    reading = outcome(post_of("batch", {"batch": calls, "sentAt": sent_at}))
    if isinstance(reading, ApiError):
        assert reading.code == "invalid_json"
        return
    for item, posted in zip(reading.items, calls, strict=True):
        assert item.event_id or not isinstance(posted, dict)
        if isinstance(item, Refusal) and isinstance(posted, dict):
            assert item.body is not None
            assert len(msgspec.json.encode(item.body)) <= MAX_BYTES


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_no_body_makes_the_reader_fail_with_anything_but_an_answer(raw: bytes) -> None:
    for path in ("track", "batch"):
        assert isinstance(segment.token(post_of(path, raw)), str)
        reading = outcome(post_of(path, raw))
        assert isinstance(reading, Reading) or reading.status_code == 400


def outcome(post: Post) -> Reading | ApiError:
    try:
        return segment.read(post, SHOP)
    except ApiError as error:
        return error


# --- Over HTTP -----------------------------------------------------------------------------


def configure_residency(monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """`compliance.residency` of the configuration, changed for one test."""
    compliance = settings.EMAILAUTO.compliance
    section = msgspec.structs.replace(compliance.residency, **options)
    compliance = msgspec.structs.replace(compliance, residency=section)
    changed = msgspec.structs.replace(settings.EMAILAUTO, compliance=compliance)
    monkeypatch.setattr(settings, "EMAILAUTO", changed)


@pytest.fixture
def token(db: None) -> str:
    return make_api_key(source="shop")[1]


def send(document: Any, path: str = "batch", **headers: str) -> Any:
    return Client().post(
        f"/segment/v1/{path}",
        json.dumps(document),
        content_type="application/json",
        headers=headers,
    )


def basic(token: str) -> str:
    return "Basic " + base64.b64encode(f"{token}:".encode()).decode()


def test_key_may_be_the_basic_user_a_bearer_token_or_the_write_key(token: str) -> None:
    documents = [call(messageId=f"m-{n}") for n in range(3)]
    answers = [
        send({"batch": documents[:1]}, authorization=basic(token)),
        send(documents[1], "track", authorization=f"Bearer {token}"),
        send({**documents[2], "writeKey": token}, "track"),
    ]
    assert [(answer.status_code, answer.json()) for answer in answers] == [
        (200, {"success": True, "rejected": []})
    ] * 3
    assert Event.objects.filter(source="shop").count() == 3


@pytest.mark.parametrize("key", ["", "wk", "emauto_live_a\0aaaaaa_" + "b" * 40])
def test_without_a_valid_key_nothing_is_stored(token: str, key: str) -> None:
    for answer in (
        send({"batch": [call()], "writeKey": key}),
        send({"batch": [call()]}, authorization=basic(key)),
    ):
        assert answer.status_code == 401
        assert set(answer.json()) == {"code", "message", "details"}
    assert not Event.objects.exists()


def test_body_over_the_limit_is_answered_so_that_a_library_gives_up(token: str) -> None:
    big = call(properties={f"k{n}": "x" * 30_000 for n in range(180)})
    answer = send({"batch": [big]}, authorization=basic(token))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_bad_calls_are_kept_for_replay_and_their_neighbours_stored(token: str) -> None:
    documents = [call(), call(messageId="m-2", userId=None), call(messageId="m-3", type="x"), 7]
    answer = send({"batch": documents}, authorization=basic(token))
    assert answer.status_code == 200
    assert [(item["index"], item["messageId"]) for item in answer.json()["rejected"]] == [
        (1, "m-2"),
        (2, "m-3"),
        (3, None),
    ]
    assert list(Event.objects.values_list("event_id", flat=True)) == ["m-1"]
    kept = Rejection.objects.order_by("event_id")
    assert [(row.event_id, row.type, row.code, row.state) for row in kept] == [
        ("m-2", "Order Completed", "invalid", "open"),
        ("m-3", "", "invalid", "open"),
    ]
    replay = replay_rejections([row.pk for row in kept])
    assert (replay.taken, replay.refused) == (1, 1)
    assert Event.objects.get(event_id="m-2").payload == {"total": 12.5}


def test_message_that_was_replayed_is_not_taken_twice(token: str) -> None:
    send({"batch": [call(userId=None)]}, authorization=basic(token))
    replay_rejections([Rejection.objects.get().pk])
    for document in (call(), call(properties={})):
        assert send({"batch": [document]}, authorization=basic(token)).status_code == 200
    assert Event.objects.count() == 1


def test_known_message_is_a_success_whatever_its_body(token: str) -> None:
    for total in (1, 1, 2):
        answer = send({"batch": [call(properties={"total": total})]}, authorization=basic(token))
        assert answer.json() == {"success": True, "rejected": []}
    assert Event.objects.get().payload == {"total": 1}
    assert not Rejection.objects.exists()


def test_unregistered_type_is_kept_where_such_are_refused(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = msgspec.structs.replace(settings.EMAILAUTO.events, unregistered_types="refuse")
    changed = msgspec.structs.replace(settings.EMAILAUTO, events=events)
    monkeypatch.setattr(settings, "EMAILAUTO", changed)
    answer = send({"batch": [call()]}, authorization=basic(token))
    assert (answer.status_code, answer.json()["rejected"][0]["code"]) == (200, "unregistered")
    kept = Rejection.objects.get()
    assert (kept.code, kept.body["payload"]) == ("unregistered", {"total": 12.5})


def test_of_a_person_of_a_foreign_region_nothing_is_kept_however_broken_the_call(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_residency(monkeypatch, regions=["eu-*"])
    ContactFactory(user_id="u-us", region="us-east-1")
    foreign = {"context": {"region": "us-east-1"}}
    documents = [
        call(messageId="1", userId="u-us"),
        call(messageId="2", userId="u-us", event=None),
        call(messageId="3", **foreign),
        call(messageId="4", event=None, **foreign),
        call(messageId="5", event=None, properties={"a": "x" * 300_000}, **foreign),
        call(messageId="6", event=None),
    ]
    answer = send({"batch": documents}, authorization=basic(token))
    assert answer.status_code == 200
    assert not Event.objects.exists()
    kept = Rejection.objects.order_by("event_id").values_list("event_id", "code", "type")
    assert list(kept) == [
        ("1", "residency", ""),
        ("2", "residency", ""),
        ("3", "residency", ""),
        ("4", "residency", ""),
        ("5", "residency", ""),
        ("6", "invalid", ""),
    ]
    assert not Rejection.objects.filter(code="residency", body__isnull=False).exists()


def test_moment_of_arrival_is_what_the_clock_is_corrected_by(token: str) -> None:
    fast = now() + timedelta(hours=3)
    document = call(timestamp=(fast - timedelta(minutes=10)).isoformat())
    send({"batch": [document], "sentAt": fast.isoformat()}, authorization=basic(token))
    found = Event.objects.get()
    assert found.stated_at == datetime.fromisoformat(document["timestamp"])
    assert abs(found.occurred_at - (found.received_at - timedelta(minutes=10))) < timedelta(
        minutes=1
    )


@pytest.mark.parametrize(
    ("timestamp", "sent_at"),
    [
        ("9999-12-31T23:59:00Z", "2026-11-22T00:00:00Z"),
        ("1970-01-01T00:00:00Z", "2026-11-23T00:00:00Z"),
    ],
)
def test_clock_no_time_can_be_corrected_by_is_no_server_error(
    token: str, timestamp: str, sent_at: str
) -> None:
    documents = [call(timestamp=timestamp), call(messageId="m-2"), call(messageId="m-3", type="x")]
    answer = send({"batch": documents, "sentAt": sent_at}, authorization=basic(token))
    assert answer.status_code == 200
    assert Event.objects.count() == 2

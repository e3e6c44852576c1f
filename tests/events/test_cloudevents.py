"""CloudEvents 1.0: what the HTTP binding and the JSON format say, then the way over HTTP."""

import base64
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from common.api import ApiError
from events import cloudevents
from events.cloudevents import decode_header
from events.directory import Producer
from events.exchange import Post, Reading
from events.models import Event, SeenType
from events.states import RefusalCode
from events.wire import MAX_BYTES, EventIn, Item, Recorded, Refusal
from tests.factories import make_api_key

RECEIVED = datetime(2026, 11, 22, 4, 9, 30, tzinfo=UTC)
SHOP = Producer(key="k", source="shop", scopes=frozenset({"events:write"}), rate_limit=0)
STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"


def cloud_event(**fields: Any) -> dict[str, Any]:
    """A well-formed event in the JSON format."""
    return {
        "specversion": "1.0",
        "id": "1",
        "source": "/orders",
        "type": "com.example.ordered",
        "time": "2026-11-22T04:09:24.454Z",
        "subject": "u-1",
        "data": {"total": 12.5},
        **fields,
    }


def post_of(document: Any, content_type: str = STRUCTURED, **headers: str) -> Post:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if content_type:
        named["content-type"] = content_type
    return Post("", named, raw, RECEIVED)


def binary(
    data: Any = b'{"total": 12.5}', content_type: str = "application/json", **ce: str
) -> Post:
    attributes = {"specversion": "1.0", "id": "1", "source": "/orders", "type": "ordered", **ce}
    headers = {f"ce_{name}": value for name, value in attributes.items() if value}
    return post_of(data, content_type, **headers)


def item(post: Post) -> Item:
    (found,) = cloudevents.read(post, SHOP).items
    return found


def event(post: Post) -> EventIn:
    found = item(post)
    assert isinstance(found, EventIn), found
    return found


def refusal(post: Post) -> Refusal:
    found = item(post)
    assert isinstance(found, Refusal), found
    return found


def refused(post: Post) -> ApiError:
    """The refusal of the whole request."""
    with pytest.raises(ApiError) as error:
        cloudevents.read(post, SHOP)
    return error.value


@pytest.mark.parametrize(
    "content_type",
    [
        STRUCTURED,
        "application/cloudevents+json; charset=UTF-8",
        "Application/CloudEvents+JSON;charset=utf-8",
    ],
)
def test_structured_event_is_an_event(content_type: str) -> None:
    found = event(post_of(cloud_event(partitionkey="p", sampled=True, rate=5), content_type))
    assert (found.source, found.event_id, found.type, found.user_id) == (
        "shop//orders",
        "1",
        "com.example.ordered",
        "u-1",
    )
    assert found.occurred_at == datetime(2026, 11, 22, 4, 9, 24, 454_000, tzinfo=UTC)
    assert found.payload == {"total": 12.5}
    assert found.metadata == {
        "source": "/orders",
        "subject": "u-1",
        "partitionkey": "p",
        "sampled": True,
        "rate": 5,
    }


def test_binary_event_is_an_event() -> None:
    found = event(
        binary(
            content_type="application/json; charset=utf-8",
            time="2026-11-22T04:09:24.454Z",
            subject="u-1",
            traceparent="00-0af7-b7ad-01",
        )
    )
    assert (found.source, found.event_id, found.type, found.user_id) == (
        "shop//orders",
        "1",
        "ordered",
        "u-1",
    )
    assert found.occurred_at == datetime(2026, 11, 22, 4, 9, 24, 454_000, tzinfo=UTC)
    assert found.payload == {"total": 12.5}
    assert found.metadata == {
        "source": "/orders",
        "subject": "u-1",
        "datacontenttype": "application/json; charset=utf-8",
        "traceparent": "00-0af7-b7ad-01",
    }


def test_event_is_the_same_in_every_mode() -> None:
    document = cloud_event(type="ordered")
    structured = event(post_of(document))
    (batched,) = cloudevents.read(post_of([document], BATCHED), SHOP).items
    sent_binary = event(binary(time=document["time"], subject="u-1"))
    assert batched == structured
    assert (sent_binary.key, sent_binary.body_hash) == (structured.key, structured.body_hash)


def test_event_is_the_same_with_another_trace_and_another_with_other_data() -> None:
    first = event(post_of(cloud_event(traceparent="00-1-1-01")))
    assert event(post_of(cloud_event(traceparent="00-2-2-01"))).body_hash == first.body_hash
    assert event(post_of(cloud_event(data={"total": 13}))).body_hash != first.body_hash


def test_id_is_unique_within_its_source_only() -> None:
    one, other = event(binary(source="/a")), event(binary(source="/b"))
    assert one.key != other.key
    assert one.producer == other.producer == "shop"


def test_long_source_is_shortened_without_leaving_the_namespace_of_its_producer() -> None:
    producer = Producer(key="k", source="p" * 60, scopes=SHOP.scopes, rate_limit=0)
    sources = [f"https://shop.example/{'orders/' * 100}{n}" for n in range(2)]
    found = [
        cloudevents.read(post_of(cloud_event(source=source)), producer).items[0]
        for source in sources
    ]
    assert [len(event.source) for event in found] == [100, 100]
    assert {event.source.partition("/")[0] for event in found} == {producer.source}
    assert found[0].source != found[1].source
    assert [event.metadata["source"] for event in found if isinstance(event, EventIn)] == sources


@pytest.mark.parametrize(
    ("subject", "data", "user_id"),
    [
        ("u-1", {"userId": "u-2"}, "u-1"),
        (None, {"userId": "u-2", "user_id": "u-3"}, "u-2"),
        (None, {"user_id": "u-3"}, "u-3"),
        (None, {"userId": 17}, "17"),
        (None, {"userId": True}, ""),
        (None, {"userId": ["u-2"]}, ""),
        ("blobs/" + "x" * 200, {"userId": "u-2"}, "u-2"),
        (None, {}, ""),
    ],
)
def test_user_is_the_subject_or_named_by_the_data(subject: Any, data: Any, user_id: str) -> None:
    assert event(post_of(cloud_event(subject=subject, data=data))).user_id == user_id


def test_null_is_an_attribute_that_is_not_there() -> None:
    nulls = dict.fromkeys(["time", "subject", "datacontenttype", "dataschema", "data", "rate"])
    found = event(post_of(cloud_event(**nulls)))
    assert (found.occurred_at, found.user_id, found.payload) == (RECEIVED, "", {})
    assert found.metadata == {"source": "/orders"}


@pytest.mark.parametrize(
    "post",
    [
        binary(b"", content_type=""),
        binary(b"", content_type="text/plain"),
        binary(b"null"),
        binary(b"{}", content_type=""),
        binary(b"{}", content_type="application/vnd.shop+json"),
        binary(b"{}", content_type="text/json"),
    ],
)
def test_data_may_be_missing_or_of_no_declared_type(post: Post) -> None:
    assert event(post).payload == {}


def test_base64_data_are_the_json_in_them() -> None:
    encoded = base64.b64encode(b'{"total": 12.5}').decode()
    document = cloud_event(data_base64=encoded, data=None)
    assert event(post_of(document)).payload == {"total": 12.5}


# --- Header values (HTTP binding, 3.1.3.2) -------------------------------------------------


@pytest.mark.parametrize(
    ("value", "attribute"),
    [
        ("plain", "plain"),
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("%e2%82%ac", "€"),
        ("%70%6Cain", "plain"),
        ("%2520", "%20"),
        ('"quoted text"', "quoted text"),
        (r'"a \"b\" \\ c"', r'a "b" \ c'),
        ('"Euro%20%E2%82%AC"', "Euro €"),
        ('""', ""),
        ('"', '"'),
        ('say "hi"', 'say "hi"'),
        ("100%", "100%"),
        ("%zz", "%zz"),
        ("a+b", "a+b"),
        ("Euro €".encode().decode("latin-1"), "Euro €"),
    ],
)
def test_header_is_unquoted_and_percent_decoded_once(value: str, attribute: str) -> None:
    assert decode_header(value) == attribute


@pytest.mark.parametrize(
    "value",
    [
        "%C0%A0",  # an overlong space
        "%ED%A0%80",  # a surrogate
        "%F4%90%80%80",  # beyond U+10FFFF
        "%E2%82",
        "%FF",
        "caf\xe9",
        "€",
    ],
)
def test_header_that_is_no_utf_8_is_refused(value: str) -> None:
    with pytest.raises(UnicodeError):
        decode_header(value)
    found = refusal(binary(shop=value))
    assert [(problem.path, problem.message) for problem in found.problems] == [
        ("shop", "is not valid UTF-8, percent-encoded")
    ]


@given(st.text(st.characters(codec="utf-8")))
def test_header_a_sender_encodes_is_the_text_it_meant(text: str) -> None:
    assert decode_header(quote(text, safe="")) == text


# --- Refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"specversion": None}, "specversion"),
        ({"specversion": "0.3"}, "specversion"),
        ({"specversion": 1.0}, "specversion"),
        ({"id": None}, "id"),
        ({"id": ""}, "id"),
        ({"id": 1}, "id"),
        ({"id": "x" * 201}, "id"),
        ({"id": "a\nb"}, "id"),
        ({"source": None}, "source"),
        ({"source": ""}, "source"),
        ({"type": None}, "type"),
        ({"type": "x" * 201}, "type"),
        ({"subject": ""}, "subject"),
        ({"subject": 7}, "subject"),
        ({"time": "yesterday"}, "time"),
        ({"time": 1_790_000_000}, "time"),
        ({"dataschema": []}, "dataschema"),
        ({"datacontenttype": True}, "datacontenttype"),
        ({"partitionKey": "p"}, "partitionKey"),
        ({"my_ext": "x"}, "my_ext"),
        ({"x" * 101: "x"}, "x" * 20 + "…"),
        ({"ext": 1.5}, "ext"),
        ({"ext": {"a": 1}}, "ext"),
        ({"ext": "a\u0085b"}, "ext"),
        ({"data": "text"}, "data"),
        ({"data": []}, "data"),
        ({"data": 0}, "data"),
        ({"data": {"a": {"": 1}}}, "data.a"),
        ({"data_base64": "e30="}, "data_base64"),
        ({"data": None, "data_base64": "e30"}, "data_base64"),
        ({"data": None, "data_base64": "ä"}, "data_base64"),
        ({"data": None, "data_base64": {}}, "data_base64"),
        ({"data": None, "data_base64": "PHhtbC8+"}, "data_base64"),
        ({"data": None, "data_base64": "W10="}, "data"),
    ],
)
def test_wrong_event_is_refused_with_its_path(change: dict[str, Any], path: str) -> None:
    found = refusal(post_of(cloud_event(**change)))
    assert found.code is RefusalCode.INVALID
    assert [problem.path for problem in found.problems] == [path]


@pytest.mark.parametrize(
    ("post", "paths"),
    [
        (binary(datacontenttype="application/json"), ["datacontenttype"]),
        (binary(data="{}"), ["data"]),
        (binary(data_base64="e30="), ["data-base64"]),
        (binary(b"[]"), ["data"]),
        (binary(id="", type=""), ["id", "type"]),
        (post_of({}, "application/json"), ["id", "type", "source", "specversion"]),
    ],
)
def test_wrong_binary_event_is_refused_with_its_paths(post: Post, paths: list[str]) -> None:
    assert [problem.path for problem in refusal(post).problems] == paths


def test_event_over_the_limit_is_refused_and_one_of_64_kb_is_not() -> None:
    assert event(post_of(cloud_event(data={f"k{n}": "x" * 6_400 for n in range(10)})))
    data = {f"k{n}": "x" * 30_000 for n in range(10)}
    assert MAX_BYTES < 300_000
    assert refusal(post_of(cloud_event(data=data))).problems[0].path == ""
    many = {f"ext{n}": "x" * 30_000 for n in range(3)}
    assert refusal(post_of(cloud_event(**many))).problems[0].path == ""


@pytest.mark.parametrize(
    "content_type",
    [
        "application/cloudevents",
        "application/cloudevents+avro",
        "application/cloudevents+xml",
        "application/cloudevents+jsonx",
        "application/cloudevents-batch",
        "application/cloudevents-batch+avro",
    ],
)
def test_format_that_is_not_json_is_not_read(content_type: str) -> None:
    assert refused(post_of(cloud_event(), content_type)).status_code == 415


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "json", "a/b/json"])
def test_binary_data_that_are_not_json_are_not_read(content_type: str) -> None:
    error = refused(binary(b"<xml/>", content_type))
    assert (error.status_code, error.details[0]["path"]) == (415, "data")


@pytest.mark.parametrize(
    ("post", "status"),
    [
        (post_of(b"{"), 400),
        (post_of(b"\xff"), 400),
        (post_of("{}".encode("utf-16"), f"{STRUCTURED}; charset=utf-16"), 400),
        (binary(b"{"), 400),
        (binary(b'{"a": "\\u0000"}'), 400),
        (post_of(cloud_event(), BATCHED), 400),
        (post_of([{}, 7], BATCHED), 400),
        (post_of([{}] * 1_001, BATCHED), 413),
    ],
)
def test_request_that_holds_no_event_is_refused_whole(post: Post, status: int) -> None:
    assert refused(post).status_code == status


def test_batch_is_answered_event_by_event() -> None:
    documents = [cloud_event(), cloud_event(id="2", type=None), cloud_event(id="3"), 7]
    reading = cloudevents.read(post_of(documents, BATCHED), SHOP)
    _, bad, _, none = reading.items
    assert isinstance(bad, Refusal)
    assert isinstance(none, Refusal)
    reply = reading.answer(reading.items, [Recorded.ACCEPTED, bad, Recorded.DUPLICATE, none])
    assert reply.status == 202
    results = json.loads(reply.body)["results"]
    assert [(result["event_id"], result["status"]) for result in results] == [
        ("1", "accepted"),
        ("2", "invalid"),
        ("3", "duplicate"),
        (None, "invalid"),
    ]
    assert results[1]["details"] == [{"path": "1.type", "message": "is required"}]


def test_empty_batch_is_fine() -> None:
    reading = cloudevents.read(post_of([], BATCHED), SHOP)
    reply = reading.answer(reading.items, [])
    assert (reply.status, reply.body) == (202, b'{"results":[]}')


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)
any_events = st.fixed_dictionaries(
    {"specversion": st.just("1.0")},
    optional={
        "id": st.text() | json_values,
        "source": st.text() | json_values,
        "type": st.text() | json_values,
        "time": st.datetimes().map(datetime.isoformat) | json_values,
        "subject": json_values,
        "data": json_values,
        "data_base64": st.binary().map(lambda raw: base64.b64encode(raw).decode()) | json_values,
        "ext": json_values,
    },
)
bodies = (
    st.binary()
    | json_values.map(lambda value: json.dumps(value).encode())
    | any_events.map(lambda value: json.dumps(value).encode())
    | st.lists(any_events, max_size=3).map(lambda value: json.dumps(value).encode())
)
header_values = st.text(st.characters(max_codepoint=255)) | st.text()
any_headers = st.dictionaries(
    st.sampled_from(["ce-id", "ce-source", "ce-type", "ce-time", "ce-data", "ce-ext", "ce-"]),
    header_values,
)


@given(
    bodies,
    any_headers,
    st.sampled_from([STRUCTURED, BATCHED, "application/json", ""]) | header_values,
)
def test_no_request_makes_the_reader_fail_with_anything_but_an_answer(
    body: bytes, headers: dict[str, str], content_type: str
) -> None:
    named = {"ce-specversion": "1.0", **headers, "content-type": content_type}
    reading = outcome(Post("", named, body, RECEIVED))
    if isinstance(reading, ApiError):
        assert reading.status_code in (400, 415)
        return
    for found in reading.items:
        assert isinstance(found, EventIn) or found.problems


def outcome(post: Post) -> Reading | ApiError:
    try:
        return cloudevents.read(post, SHOP)
    except ApiError as error:
        return error


# --- Over HTTP -----------------------------------------------------------------------------


@pytest.fixture
def token(db: None) -> str:
    return make_api_key(source="shop")[1]


def send(token: str, document: Any, content_type: str = STRUCTURED, **headers: str) -> Any:
    return Client().post(
        "/cloudevents",
        json.dumps(document),
        content_type=content_type,
        headers={"authorization": f"Bearer {token}", **headers},
    )


def test_event_is_accepted_once_in_whatever_mode_it_comes(token: str) -> None:
    document = cloud_event(type="ordered")
    names = ("specversion", "id", "source", "type", "time", "subject")
    headers = {f"ce-{name}": document[name] for name in names}
    answers = [
        send(token, document),
        send(token, document["data"], "application/json", **headers),
        send(token, [document], BATCHED),
    ]
    assert [answer.status_code for answer in answers] == [202] * 3
    assert answers[0].json() == answers[1].json() == {"event_id": "1", "status": "accepted"}
    assert answers[2].json() == {"results": [{"event_id": "1", "status": "duplicate"}]}
    found = Event.objects.get()
    assert (found.source, found.type, found.payload) == ("shop//orders", "ordered", {"total": 12.5})


def test_same_id_with_other_data_is_a_conflict(token: str) -> None:
    send(token, cloud_event())
    answer = send(token, cloud_event(data={}))
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert Event.objects.get().payload == {"total": 12.5}


def test_wrong_event_is_answered_with_its_path(token: str) -> None:
    answer = send(token, cloud_event(data="text"))
    assert answer.status_code == 400
    assert answer.json() == {
        "code": "invalid",
        "message": "data: must be a JSON object: it becomes the payload of an event",
        "details": [
            {
                "path": "data",
                "message": "must be a JSON object: it becomes the payload of an event",
            }
        ],
    }


def test_names_are_counted_by_producer_and_not_by_what_it_calls_its_sources(token: str) -> None:
    for number in range(3):
        send(token, cloud_event(source=f"/orders/{number}"))
    assert list(SeenType.objects.values_list("source", "name")) == [("shop", "com.example.ordered")]


def test_without_a_key_nothing_is_stored(token: str) -> None:
    answer = send("nonsense", cloud_event())
    assert answer.status_code == 401
    assert not Event.objects.exists()


def test_handshake_allows_the_origin_that_asks() -> None:
    answer = Client().options(
        "/cloudevents",
        headers={
            "WebHook-Request-Origin": "eventemitter.example.com",
            "WebHook-Request-Rate": "120",
        },
    )
    assert answer.status_code == 200
    assert answer.headers["WebHook-Allowed-Origin"] == "eventemitter.example.com"
    assert answer.headers["WebHook-Allowed-Rate"] == "*"
    assert "POST" in answer.headers["Allow"]


def test_options_without_an_origin_is_no_handshake() -> None:
    assert "WebHook-Allowed-Origin" not in Client().options("/cloudevents").headers

"""JSON Schemas of payloads: what an author may write, what they find, what they mark, and the
first one made from what was posted."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.marks import HIDDEN, marked_paths, redacted
from events.samples import schema_from_events
from events.schema_rules import MAX_BYTES, MAX_LEVELS, MAX_PARTS, PII, SENSITIVE, check_schema
from events.schemas import MAX_PROBLEMS, InvalidSchema, compile_schema, pointer_to
from events.suggestions import suggest_schema
from tests.factories import EventFactory

ORDER = {
    "type": "object",
    "required": ["order"],
    "properties": {
        "order": {
            "type": "object",
            "required": ["id"],
            "properties": {"total": {"type": "number", "minimum": 0}},
        }
    },
}


def problems(schema: dict[str, Any], payload: dict[str, Any]) -> list[tuple[str, str]]:
    return [(found.path, found.message) for found in compile_schema(schema)(payload)]


def refusal(schema: Any) -> InvalidSchema:
    with pytest.raises(InvalidSchema) as caught:
        check_schema(schema)
    return caught.value


def of(part: Any, **more: Any) -> dict[str, Any]:
    """A schema whose payload has one field, `a`."""
    return {"type": "object", "properties": {"a": part}, **more}


# What a payload is told


def test_payload_that_fits_has_no_problem() -> None:
    assert problems(ORDER, {"order": {"id": "o-1", "total": 12.5}, "note": "more"}) == []


def test_problem_names_its_place_as_a_json_pointer() -> None:
    assert problems(ORDER, {"order": {"id": "o-1", "total": -1}}) == [
        ("/order/total", "must be at least 0")
    ]


def test_missing_field_is_named_by_the_pointer_it_should_have() -> None:
    assert problems(ORDER, {}) == [("/order", "is required")]
    assert problems(ORDER, {"order": {}}) == [("/order/id", "is required")]


def test_pointer_escapes_slash_and_tilde() -> None:
    schema = {"type": "object", "properties": {"a/b~c": {"type": "string"}}}
    assert problems(schema, {"a/b~c": 1}) == [("/a~1b~0c", "must be string")]


def test_pointer_leads_into_a_list() -> None:
    schema = of({"items": {"type": "integer"}})
    assert problems(schema, {"a": [1, "x", 3]}) == [("/a/1", "must be integer")]


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ({"type": ["string", "null"]}, 1, "must be null or string"),
        ({"enum": ["new", 7]}, "x", "must be one of new or 7"),
        ({"const": {"b": 1}}, "x", 'must be {"b":1}'),
        ({"format": "email"}, "x", "must have the format email"),
        ({"format": "date-time"}, "x", "must have the format date-time"),
        ({"pattern": "^[0-9]+$"}, "x", "must match ^[0-9]+$"),
        ({"minLength": 3}, "x", "must have at least 3 characters"),
        ({"maxLength": 3}, "four", "must have at most 3 characters"),
        ({"maximum": 3}, 4, "must be at most 3"),
        ({"exclusiveMinimum": 3}, 3, "must be greater than 3"),
        ({"exclusiveMaximum": 3}, 3, "must be less than 3"),
        ({"multipleOf": 2}, 3, "must be a multiple of 2"),
        ({"minItems": 2}, [1], "must have at least 2 items"),
        ({"maxItems": 0}, [1], "must have at most 0 items"),
        ({"uniqueItems": True}, [1, 1], "must not have the same item twice"),
        ({"contains": {"type": "string"}}, [1], "does not have the items it must contain"),
        ({"minProperties": 1}, {}, "must have at least 1 keys"),
        ({"maxProperties": 0}, {"b": 1}, "must have at most 0 keys"),
        ({"additionalProperties": False}, {"b": 1}, "must have no keys"),
        ({"propertyNames": {"maxLength": 1}}, {"bb": 1}, "has a key that is not allowed"),
        ({"anyOf": [{"type": "string"}]}, 1, "fits none of the alternatives"),
        ({"oneOf": [True, True]}, 1, "must fit exactly one of the alternatives"),
        ({"not": True}, 1, "is what the schema excludes"),
        (False, 1, "is not allowed here"),
        ({"prefixItems": [True], "items": False}, [1, 2], "is not allowed here"),
        ({"prefixItems": [True], "unevaluatedItems": False}, [1, 2], "has items that are not"),
    ],
)
def test_each_keyword_says_what_it_expected(part: Any, value: Any, message: str) -> None:
    ((_, said),) = problems(of(part), {"a": value})
    assert said.startswith(message)


def test_each_key_too_many_is_named() -> None:
    schema = of(True, additionalProperties=False)
    assert problems(schema, {"a": 0, "b": 1, "c": 2}) == [
        ("/b", "is not allowed here"),
        ("/c", "is not allowed here"),
    ]


def test_key_that_another_one_asks_for_is_named() -> None:
    schema = {"type": "object", "dependentRequired": {"card": ["address"]}}
    assert problems(schema, {"card": 1}) == [("/address", "is required")]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "integer"},
        {"enum": ["b"]},
        {"const": "b"},
        {"format": "email"},
        {"pattern": "^b$"},
        {"maxLength": 2},
        {"anyOf": [{"type": "integer"}, {"const": "b"}]},
        {"oneOf": [True, True]},
        {"not": {"type": "string"}},
        False,
    ],
)
def test_message_never_quotes_the_payload(part: Any) -> None:
    text = str(problems(of(part), {"a": "ada lovelace"}))
    assert "/a" in text
    assert "ada" not in text


def test_only_so_many_problems_are_named() -> None:
    schema = of({"items": {"type": "string"}})
    assert len(problems(schema, {"a": [1] * 500})) == MAX_PROBLEMS


def test_large_payload_is_told_its_first_problem() -> None:
    schema = of({"items": {"type": "string"}})
    assert problems(schema, {"a": [1] * 50_000}) == [("/a/0", "must be string")]


def test_large_numbers_of_any_kind_are_checked() -> None:
    schema = of({"type": "integer", "maximum": 5})
    assert problems(schema, {"a": 10**20}) == [("/a", "must be at most 5")]


def test_pattern_that_would_stall_a_backtracking_engine_is_answered() -> None:
    schema = of({"pattern": "^(a+)+$"})
    assert problems(schema, {"a": "a" * 30_000 + "!"}) == [("/a", "must match ^(a+)+$")]


def test_references_within_the_document_are_followed() -> None:
    schema = of({"$ref": "#/$defs/mo~1ney%20x"}, **{"$defs": {"mo/ney x": {"type": "number"}}})
    check_schema(schema)
    assert problems(schema, {"a": "x"}) == [("/a", "must be number")]


# What an author may write


def test_usual_schema_is_accepted() -> None:
    check_schema({"$schema": "https://json-schema.org/draft/2020-12/schema", **ORDER})


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ([], ""),
        ("{}", ""),
        ({}, "/type"),
        ({"type": "array"}, "/type"),
        ({"type": ["object", "null"]}, "/type"),
        ({"type": "objekt"}, "/type"),
        (of({"type": "strin"}), "/properties/a/type"),
        (of({"minimum": "3"}), "/properties/a/minimum"),
        (of(5), "/properties/a"),
        ({"type": "object", "required": "a"}, "/required"),
        ({"type": "object", "requierd": ["a"]}, "/requierd"),
        (of({"nullable": True}), "/properties/a/nullable"),
        (of({"format": "e-mail"}), "/properties/a/format"),
        (of({"pattern": "("}), "/properties/a/pattern"),
        (of({"pattern": "(?=a)b"}), "/properties/a/pattern"),
        (of({"pattern": r"(a)\1"}), "/properties/a/pattern"),
        (of({"patternProperties": {"(?!a)": True}}), "/properties/a/patternProperties/(?!a)"),
        (of({PII: "yes"}), "/properties/a/x-pii"),
        (of({"items": {SENSITIVE: 1}}), "/properties/a/items/x-sensitive"),
        ({"type": "object", "$schema": "http://json-schema.org/draft-07/schema#"}, "/$schema"),
        (of({"$schema": "https://json-schema.org/draft/2020-12/schema"}), "/properties/a/$schema"),
        (of({"$id": "https://example.com/a"}), "/properties/a/$id"),
        (of({"$dynamicRef": "#a"}), "/properties/a/$dynamicRef"),
        (of({"$ref": "#/$defs/none"}), "/properties/a/$ref"),
        (of({"$ref": "#/examples/0"}, examples=[{"type": "nope"}]), "/properties/a/$ref"),
        (of({"$ref": "#"}), "/properties/a/$ref"),
        (of({"$ref": "#/properties/a"}), "/properties/a/$ref"),
        (of({"items": {"$ref": "#/properties/a"}}), "/properties/a/items/$ref"),
    ],
)
def test_author_is_told_where_the_schema_is_wrong(schema: Any, pointer: str) -> None:
    error = refusal(schema)
    assert error.pointer == pointer
    assert error.message
    assert str(error).startswith(pointer or "The schema")


def test_unknown_notes_are_accepted_below_x() -> None:
    check_schema(of({"x-owner": {"team": "shop"}, "title": "A", "examples": [1]}))


def test_schema_over_the_size_is_refused() -> None:
    schema = {"type": "object", "description": "x" * MAX_BYTES}
    assert "larger" in refusal(schema).message


def test_schema_nested_too_deeply_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(MAX_LEVELS):
        deep = {"not": deep}
    assert "deeper" in refusal({"type": "object", **deep}).message


def test_schema_that_doubles_with_each_reference_is_refused() -> None:
    doubles = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)}
    schema = of({"$ref": "#/$defs/d0"}, **{"$defs": {**doubles, "d30": True}})
    assert str(MAX_PARTS) in refusal(schema).message


def test_long_chain_of_references_is_refused() -> None:
    chain = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(1_000)}
    schema = of({"$ref": "#/$defs/d0"}, **{"$defs": {**chain, "d1000": True}})
    assert "deeper" in refusal(schema).message


# Nothing is fetched


class _Server(HTTPServer):
    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _Answer)


class _Answer(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"type": "string"}')

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    server = _Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    "schema",
    [
        lambda url: of({"$ref": f"{url}/schema"}),
        lambda url: of({"$dynamicRef": f"{url}/schema"}),
        lambda url: of({"$id": f"{url}/schema"}),
        lambda url: of({"$schema": f"{url}/schema"}),
        lambda url: {"type": "object", "$schema": f"{url}/schema"},
        lambda url: {"type": "object", "$id": f"{url}/schema", "$ref": "other"},
        lambda url: of({"$ref": "#/$defs/far"}, **{"$defs": {"far": {"$ref": f"{url}/schema"}}}),
    ],
)
def test_no_schema_reaches_the_network(server: _Server, schema: Any) -> None:
    document = schema(f"http://127.0.0.1:{server.server_port}")
    refusal(document)
    try:
        check = compile_schema(document)  # as if it had been stored past the check
    except InvalidSchema:
        pass
    else:
        check({"a": 1})
    assert server.asked == []


def test_no_schema_reads_a_file(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text('{"type": "string"}')
    document = of({"$ref": file.as_uri()})
    assert refusal(document).pointer == "/properties/a/$ref"
    with pytest.raises(InvalidSchema):
        compile_schema(document)


# Marks


MARKED = {
    "type": "object",
    "properties": {
        "email": {PII: True},
        "card": {"$ref": "#/$defs/card"},
        "people": {"type": "array", "items": {"properties": {"iban": {SENSITIVE: True}}}},
        "extra": {
            "properties": {"known": {}},
            "additionalProperties": {SENSITIVE: True},
        },
        "either": {"anyOf": [{"type": "string"}, {"properties": {"pin": {SENSITIVE: True}}}]},
        "open": {SENSITIVE: False},
    },
    "$defs": {"card": {"properties": {"number": {SENSITIVE: True, PII: True}}}},
}


def test_marked_paths_are_found_below_properties_items_and_references() -> None:
    assert marked_paths(MARKED, PII) == ["/card/number", "/email"]
    assert marked_paths(MARKED, SENSITIVE) == [
        "/card/number",
        "/either/pin",
        "/extra/**",
        "/people/*/iban",
    ]


def test_sensitive_values_are_hidden_and_nothing_else() -> None:
    payload = {
        "email": "ada@example.com",
        "card": {"number": {"digits": "4111"}, "kind": "visa"},
        "people": [{"iban": "DE0", "name": "Ada"}, "somebody", {"iban": None}],
        "extra": {"known": 1, "unknown": 2},
        "either": {"pin": 1234},
        "open": "x",
    }
    before = repr(payload)
    assert redacted(payload, MARKED) == {
        "email": "ada@example.com",
        "card": {"number": HIDDEN, "kind": "visa"},
        "people": [{"iban": HIDDEN, "name": "Ada"}, "somebody", {"iban": HIDDEN}],
        "extra": {"known": 1, "unknown": HIDDEN},
        "either": {"pin": HIDDEN},
        "open": "x",
    }
    assert repr(payload) == before


def test_payload_without_a_schema_is_shown_whole() -> None:
    assert redacted({"a": [1]}, {}) == {"a": [1]}


def test_schema_marked_as_a_whole_hides_everything() -> None:
    assert redacted({"a": 1}, {"type": "object", SENSITIVE: True}) == HIDDEN


def test_schema_that_cannot_be_followed_hides_everything() -> None:
    assert redacted({"a": 1}, of({"$ref": "#/$defs/none"})) == HIDDEN


# Suggestions


def test_suggestion_describes_what_was_posted() -> None:
    payloads = [
        {
            "email": f"p{n}@example.com",
            "firstName": "Ada",
            "at": "2026-11-01T10:00:00Z",
            "status": ["new", "paid"][n % 2],
            "total": n if n % 2 else n + 0.5,
            "note": None if n else "x",
            "items": [{"sku": f"s-{n}", "count": n}],
            **({"coupon": f"c-{n}"} if n else {}),
        }
        for n in range(60)
    ]
    assert suggest_schema(payloads) == {
        "type": "object",
        "required": ["email", "firstName", "at", "status", "total", "note", "items"],
        "properties": {
            "email": {"type": "string", "format": "email", PII: True},
            "firstName": {"type": "string", PII: True},
            "at": {"type": "string", "format": "date-time"},
            "status": {"type": "string", "enum": ["new", "paid"]},
            "total": {"type": "number"},
            "note": {"type": ["null", "string"]},
            "items": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["sku", "count"],
                    "properties": {"sku": {"type": "string"}, "count": {"type": "integer"}},
                },
            },
            "coupon": {"type": "string"},
        },
    }


def test_few_samples_make_no_list_of_choices() -> None:
    payloads = [{"status": "new"}, {"status": "paid"}] * 10
    assert suggest_schema(payloads)["properties"] == {"status": {"type": "string"}}


def test_choices_that_look_personal_are_not_listed() -> None:
    payloads = [{"city": name, "phone": name} for name in ("030", "040")] * 50
    properties = suggest_schema(payloads)["properties"]
    assert properties["phone"] == {"type": "string", PII: True}
    assert properties["city"] == {"type": "string", "enum": ["030", "040"]}


@pytest.mark.parametrize(
    ("name", "is_personal"),
    [
        ("email", True),
        ("customerEmail", True),
        ("e_mail", True),
        ("phone_numbers", True),
        ("name", True),
        ("lastName", True),
        ("user_name", True),
        ("billing_address", True),
        ("addresses", True),
        ("BirthDate", True),
        ("IP", True),
        ("product_name", False),
        ("filename", False),
        ("shipping", False),
        ("description", False),
        ("total", False),
    ],
)
def test_field_is_marked_when_its_name_looks_personal(name: str, is_personal: bool) -> None:
    part = suggest_schema([{name: 1}])["properties"][name]
    assert part == ({"type": "integer", PII: True} if is_personal else {"type": "integer"})


def test_suggestion_for_maps_with_many_keys_stays_small_enough_to_save() -> None:
    payloads = [{f"{'k' * 90}{n}-{m}": {"a": {"b": m}} for m in range(200)} for n in range(20)]
    schema = suggest_schema(payloads)
    check_schema(schema)
    assert all(compile_schema(schema)(payload) == () for payload in payloads)


@pytest.mark.django_db
def test_suggestion_reads_only_so_much_of_large_events() -> None:
    EventFactory(payload={"oldest": 1})
    for _ in range(35):
        EventFactory(payload={"text": "x" * 250_000})
    assert schema_from_events("UserSignedUp")["properties"].keys() == {"text"}


# The wire formats let no empty key in.
_KEYS = st.text(min_size=1, max_size=5) | st.sampled_from(
    ["$ref", "$id", "type", "email", "a/b", "~"]
)
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**21), 10**21)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10)
    | st.sampled_from(["ada@example.com", "2026-11-01T10:00:00Z", "x"])
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(_KEYS, _VALUES, max_size=5), max_size=4), st.sampled_from([1, 30]))
def test_suggestion_can_be_saved_and_accepts_every_payload_it_was_made_from(
    payloads: list[dict[str, Any]], times: int
) -> None:
    schema = suggest_schema(payloads * times)
    check_schema(schema)
    check = compile_schema(schema)
    assert [check(payload) for payload in payloads] == [()] * len(payloads)


@given(st.dictionaries(_KEYS, _VALUES, max_size=5), st.dictionaries(_KEYS, _VALUES, max_size=5))
def test_key_that_a_suggestion_saw_everywhere_is_missed_by_its_pointer(
    sample: dict[str, Any], other: dict[str, Any]
) -> None:
    found = {problem.path for problem in compile_schema(suggest_schema([sample]))(other)}
    missing = {pointer_to(key) for key in sample.keys() - other.keys()}
    assert missing <= found
    assert {path for path in found if path.count("/") == 1} <= {pointer_to(k) for k in sample}

"""Reading JSON that promises nothing."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhooks.reading import Malformed, as_address, at, decode, list_at, plain_id, split, text_at


@given(st.lists(st.dictionaries(st.text(), st.none() | st.text() | st.integers())), st.booleans())
def test_array_is_split_into_its_own_bytes(elements: list[Any], spacious: bool) -> None:
    body = json.dumps(elements, indent=3 if spacious else None, ensure_ascii=spacious)
    pieces = split(body.encode())
    assert [json.loads(piece) for piece in pieces] == elements
    rest = body
    for piece in pieces:
        before, found, rest = rest.partition(piece.decode())
        assert found
        assert set(before) <= set("[ \n,")
    assert set(rest) <= set("[] \n")


@pytest.mark.parametrize(
    "element", [rb'{"a": "\ud800"}', b'{"a": NaN}', b'{"a": 1e400}', b'{"a": 01}', b'"\x01"']
)
def test_odd_element_of_an_array_is_cut_out_or_the_array_refused(element: bytes) -> None:
    try:
        document = json.loads(b"[1 , " + element + b" ,\n2]")
    except ValueError:
        with pytest.raises(Malformed):
            split(b"[1 , " + element + b" ,\n2]")
    else:
        assert len(document) == 3
        assert split(b"[1 , " + element + b" ,\n2]") == [b"1", element, b"2"]


@pytest.mark.parametrize(
    "body", [rb'{"a": "\ud800"}', b'{"a": NaN}', '{"a": 1}'.encode("utf-16"), b'{"a": 1e400}']
)
def test_object_that_only_a_lenient_decoder_reads_is_read(body: bytes) -> None:
    assert repr(decode(body)) == repr(json.loads(body))


@given(st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.floats()))
def test_object_is_read_as_json_reads_it(document: dict[str, Any]) -> None:
    body = json.dumps(document)
    assert repr(decode(body)) == repr(json.loads(body)) == repr(decode(body.encode()))


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[", b"[1,]", b"[1 2]", b"[1],", b"null", b"[\xff]", b"[" * 100_000]
)
def test_what_is_no_array_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        split(body)


def test_path_that_leads_nowhere_is_empty() -> None:
    document = {"a": [{"b": 7}], "c": None, "d": True}
    assert at(document, "a", 0, "b") == 7
    assert text_at(document, "a", 0, "b") == "7"
    for path in (("a", 1), ("a", "b"), ("c", "x"), ("d", 0), ("a", 0, "b", "c")):
        assert at(document, *path) is None
        assert text_at(document, *path) == ""
    assert text_at(document, "d") == ""
    assert list_at(document, "c") == []


def test_id_that_could_not_be_stored_is_replaced_by_a_hash() -> None:
    assert plain_id("qW3rT5_-/+==", b"x") == "qW3rT5_-/+=="
    for odd in ("", "a b", "\x00", "é", "x" * 151, None, 7, ["a"]):
        assert plain_id(odd, b"x").startswith("body:")
    assert plain_id(None, b"x") != plain_id(None, b"y")


@pytest.mark.parametrize(
    ("text", "email"),
    [
        ("ada@example.com", "ada@example.com"),
        ("Ada <ada@example.com>", "ada@example.com"),
        ("<ada@example.com>", "ada@example.com"),
        ("Ada <ada@example.com>, Bob <bob@example.com>", None),
        ("ada@example.com <bob@example.com>", None),
        ("Ada", None),
        (["ada@example.com"], None),
    ],
)
def test_address_is_one_address(text: Any, email: str | None) -> None:
    address = as_address(text)
    assert (address.email if address else None) == email

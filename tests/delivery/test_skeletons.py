"""What many bodies have in common, and what is each one's own."""

import re

from hypothesis import given
from hypothesis import strategies as st

from delivery.backends.skeletons import Skeleton, skeleton_of, whole

_pieces = st.text(alphabet="ab-<>&{}%\n ä😀", max_size=6)


_lines = st.lists(
    st.sampled_from(["same\n", "\n", "a", "b\n", "-x-\n", "{}", "ä😀\r\n"]), max_size=8
)


def dashed(field: str) -> str:
    return f"-{field}-"


def filled(skeleton: Skeleton) -> list[str]:
    bodies = []
    for own in skeleton.own:
        text = skeleton.text
        for field, value in own.items():
            assert text.count(dashed(field)) == 1
            text = text.replace(dashed(field), value)
        bodies.append(text)
    return bodies


@given(st.lists(_lines.map("".join), min_size=1, max_size=6))
def test_filled_skeleton_is_each_body(bodies: list[str]) -> None:
    assert filled(skeleton_of(bodies, dashed)) == bodies


@given(head=_pieces, tail=_pieces, middles=st.lists(_pieces, min_size=1, max_size=6))
def test_no_more_is_anybodys_own_than_differs(head: str, tail: str, middles: list[str]) -> None:
    bodies = [head + middle + tail for middle in middles]
    skeleton = skeleton_of(bodies, dashed)
    assert filled(skeleton) == bodies
    most = max(sum(map(len, own.values())) for own in skeleton.own)
    assert most <= max(map(len, middles))


def test_what_stands_between_two_differences_goes_once() -> None:
    long = "".join(f"<p>Line {n} of the newsletter</p>\n" for n in range(1_000))
    bodies = [f"Hi {name},\n{long}<a href='/u/{name}'>\n" for name in ("Ada", "Bob", "Cleo")]
    skeleton = skeleton_of(bodies, dashed)
    assert filled(skeleton) == bodies
    assert [list(own.values()) for own in skeleton.own] == [
        [name, name] for name in ("Ada", "Bob", "Cleo")
    ]


@given(st.lists(_pieces, min_size=1, max_size=6))
def test_filled_whole_is_each_text(texts: list[str]) -> None:
    skeleton = whole(texts, dashed)
    assert filled(skeleton) == texts
    assert {len(own) for own in skeleton.own} == {len(set(texts)) > 1}


def test_bodies_that_are_alike_have_nothing_of_their_own() -> None:
    assert skeleton_of(["same", "same"], dashed) == Skeleton("same", [{}, {}])


@given(st.lists(st.text(alphabet="a{}\\\n", max_size=6), min_size=1, max_size=4))
def test_no_field_has_beside_it_what_must_not_be_there(bodies: list[str]) -> None:
    skeleton = skeleton_of(bodies, dashed, not_before="{\\", not_behind="}")
    assert filled(skeleton) == bodies
    assert not re.search(r"[{\\]-f|\d-\}", skeleton.text)

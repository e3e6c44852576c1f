"""What stands in a copy's file, in words."""

from typing import Any

import pytest
from django.utils import translation

from contacts.dsar import parts, person_of
from contacts.models import Contact
from preferences.words import _LABELS, MOST_ROWS, in_words, label, parts_in_words
from tests.contacts.people import contact

__all__ = ["contact"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, ""),
        ("", ""),
        ([], ""),
        ({}, ""),
        (0, "0"),
        (True, "Yes"),
        (False, "No"),
        ("2026-11-30T12:05:00.123Z", "Nov. 30, 2026, 12:05 p.m."),
        ("2026-11-30", "2026-11-30"),
        ("2026-99-30T12:05:00.123Z", "2026-99-30T12:05:00.123Z"),
        ({"a": {"b": 1, "c": [2, {"d": None}]}, "e": "x"}, "a › b: 1\na › c: 2\ne: x"),
    ],
)
def test_value_in_words(value: Any, words: str) -> None:
    assert in_words(value) == words


def test_times_are_said_in_the_pages_language() -> None:
    with translation.override("de"):
        assert in_words("2026-11-30T12:05:00Z") == "30. November 2026 12:05"
        assert in_words(True) == "Ja"


def test_long_part_is_cut_and_says_so() -> None:
    (shown,) = parts_in_words({"events": [{"type": "x"}] * (MOST_ROWS + 1)})
    assert (shown["title"], len(shown["rows"]), shown["is_cut"]) == ("Events", MOST_ROWS, True)


@pytest.mark.django_db
def test_every_part_and_column_has_words(contact: Contact) -> None:
    person = person_of(contact)
    names = {part.name for part in parts()}
    names |= {name for part in parts() for row in part.copy(person) for name in row}
    assert names - _LABELS.keys() == set()
    assert label("something_else") == "Something else"

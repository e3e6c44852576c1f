"""Time as milliseconds, and ids that sort by it."""

import os
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from uuid import RFC_4122

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.clock import from_iso8601, from_milliseconds, now, to_milliseconds
from common.ids import first_uuid7, lease_owner, shortened, uuid7


def test_now_is_aware_and_utc() -> None:
    assert now().utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("timestamp", "moment"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (951_782_400_001, datetime(2000, 2, 29, 0, 0, 0, 1_000, tzinfo=UTC)),
        (1_790_000_000_123, datetime(2026, 9, 21, 14, 13, 20, 123_000, tzinfo=UTC)),
        (253_402_300_799_000, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_milliseconds_are_a_moment_in_utc(timestamp: int, moment: datetime) -> None:
    assert from_milliseconds(timestamp) == moment
    assert from_milliseconds(timestamp).tzinfo is UTC
    assert to_milliseconds(moment) == timestamp


def test_every_millisecond_of_a_second_survives_the_round_trip() -> None:
    second = 1_790_000_000_000
    assert [
        timestamp
        for timestamp in range(second, second + 1_000)
        if to_milliseconds(from_milliseconds(timestamp)) != timestamp
    ] == []


def test_digits_below_a_millisecond_are_cut_off() -> None:
    assert to_milliseconds(datetime(2026, 1, 1, 0, 0, 0, 999_999, tzinfo=UTC)) == 1_767_225_600_999


@pytest.mark.parametrize("timestamp", [-1, 253_402_300_800_000, 10**18])
def test_milliseconds_outside_1970_to_9999_are_refused(timestamp: int) -> None:
    with pytest.raises(ValueError, match="1970 and 9999"):
        from_milliseconds(timestamp)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T04:09:24.454Z", datetime(2026, 11, 22, 4, 9, 24, 454_000, tzinfo=UTC)),
        ("2026-11-22t04:09:24z", datetime(2026, 11, 22, 4, 9, 24, tzinfo=UTC)),
        ("2026-11-22 04:09:24+00:00", datetime(2026, 11, 22, 4, 9, 24, tzinfo=UTC)),
        ("2026-11-22T04:09:24", datetime(2026, 11, 22, 4, 9, 24, tzinfo=UTC)),
        ("2026-11-22T04:09Z", datetime(2026, 11, 22, 4, 9, tzinfo=UTC)),
        ("2026-11-22T04:09:24-00:00", datetime(2026, 11, 22, 4, 9, 24, tzinfo=UTC)),
        ("2026-11-22T04:09:24+14:00", datetime(2026, 11, 21, 14, 9, 24, tzinfo=UTC)),
        ("2026-11-22T04:09:24-14:00", datetime(2026, 11, 22, 18, 9, 24, tzinfo=UTC)),
        ("2026-11-22T04:09:24+0530", datetime(2026, 11, 21, 22, 39, 24, tzinfo=UTC)),
        ("2026-11-22T04:09:24,5Z", datetime(2026, 11, 22, 4, 9, 24, 500_000, tzinfo=UTC)),
        ("2026-11-22T04:09:24.999999999Z", datetime(2026, 11, 22, 4, 9, 24, 999_999, tzinfo=UTC)),
        ("2024-02-29T00:00:00Z", datetime(2024, 2, 29, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("2017-01-01T00:59:60.5+01:00", datetime(2016, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC)),
        ("1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:60Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_iso_8601_is_a_moment_in_utc(text: str, moment: datetime) -> None:
    assert from_iso8601(text) == moment
    assert from_iso8601(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1790000000000",
        "2026-11-22",
        "2026-W47-7T04:09:24Z",
        "2026-326T04:09:24Z",
        "20261122T040924Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T04:60:00Z",
        "2026-11-22T04:09:60Z",
        "2026-11-22T04:09:61Z",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-11-22x04:09:24Z",
        "2026-11-22T04:09:24+14:01",
        "2026-11-22T04:09:24+99:00",
        "2026-11-22T04:09:24Europe/Berlin",
        "2026-11-22T04:09:24Z ",
        "２０２６-11-22T04:09:24Z",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:59:59+01:00",
        "9999-12-31T23:59:59-01:00",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
    ],
)
def test_text_that_is_no_moment_of_1970_to_9999_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(not a|a zone|a leap|before)"):
        from_iso8601(text)


@given(
    st.text()
    | st.from_regex(
        r"\d{4}-[01]\d-[0-3]\d[T ][012]\d:\d\d(:\d\d(\.\d+)?)?([+-]\d\d:\d\d)?", fullmatch=True
    )
)
def test_no_text_makes_iso_8601_fail_with_anything_but_a_value_error(text: str) -> None:
    with suppress(ValueError):
        from_iso8601(text)


@given(st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30)), st.integers(-840, 840))
def test_iso_8601_of_any_zone_is_the_moment_it_was_made_from(local: datetime, minutes: int) -> None:
    moment = local.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert from_iso8601(moment.isoformat()) == moment


def test_uuid7_has_its_version_and_variant_bits_and_never_repeats() -> None:
    ids = {uuid7() for _ in range(5_000)}
    assert len(ids) == 5_000
    assert {(value.version, value.variant) for value in ids} == {(7, RFC_4122)}


def test_uuid7_carries_the_millisecond_it_was_made_in() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid7().int >> 80
    assert before <= made <= time.time_ns() // 1_000_000


def test_uuid7_of_a_later_millisecond_sorts_later() -> None:
    ids = []
    for _ in range(20):
        ids.append(uuid7())
        while time.time_ns() // 1_000_000 <= ids[-1].int >> 80:
            pass
    assert [str(value) for value in ids] == sorted(map(str, ids))


def test_first_uuid7_is_the_lower_end_of_its_moment() -> None:
    value = uuid7()
    moment = from_milliseconds(value.int >> 80)
    assert first_uuid7(moment) <= value < first_uuid7(moment + timedelta(milliseconds=1))


def test_shortened_texts_fit_and_stay_different() -> None:
    texts = [f"{'https://shop.example/orders/' * 9}{n}" for n in range(3)]
    for longest in (33, 39, 100):
        short = [shortened(text, longest) for text in texts]
        assert [len(text) for text in short] == [longest] * 3
        assert len(set(short)) == 3
    assert shortened("short", 5) == "short"


def test_each_batch_and_each_child_is_an_owner_of_its_own() -> None:
    assert lease_owner() != lease_owner()
    assert len(lease_owner()) <= 60
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, lease_owner().encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.read().split(":")[1] != lease_owner().split(":")[1]

"""Time as milliseconds, and ids that sort by it."""

import os
import time
from datetime import UTC, datetime, timedelta
from uuid import RFC_4122

import pytest

from common.clock import from_milliseconds, now, to_milliseconds
from common.ids import first_uuid7, lease_owner, uuid7


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


def test_lease_owner_is_the_same_in_one_process_and_another_in_its_child() -> None:
    assert lease_owner() == lease_owner()
    assert len(lease_owner()) <= 60
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, lease_owner().encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.read() != lease_owner()

"""Group commit on the event loop: requests share statements, and nothing else."""

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from django.db import connection, connections, transaction

from events.committer import Committer
from events.directory import Rules
from events.models import Event
from events.services import submit
from events.wire import EventIn, Item, Outcome, Recorded
from tests.factories import event_in

pytestmark = pytest.mark.django_db(transaction=True)


class Counting(Committer):
    """Counts how often it goes to the database."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    async def _run(self, items: Sequence[Item]) -> list[Outcome]:
        self.sizes.append(len(items))
        return await super()._run(items)

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()


def submit_all(requests: Sequence[Sequence[Item]]) -> tuple[list[Any], list[int]]:
    """What became of requests that came at once, and how many items went together."""

    async def main() -> tuple[list[Any], list[int]]:
        committer = Counting()
        answers = await asyncio.gather(
            *(committer.submit(items, Rules()) for items in requests), return_exceptions=True
        )
        await asyncio.sleep(0.02)
        await committer.close()
        return answers, committer.sizes

    return asyncio.run(main())


def unstorable(event_id: str) -> EventIn:
    return event_in(event_id, payload={"text": "\x00"})


def test_requests_that_come_at_once_share_a_statement() -> None:
    answers, sizes = submit_all([[event_in(f"e{n}")] for n in range(50)])
    assert answers == [[Recorded.ACCEPTED]] * 50
    assert sizes == [50]
    assert Event.objects.count() == 50


def test_each_request_gets_its_own_answers_in_order() -> None:
    answers, _ = submit_all(
        [
            [event_in("a"), event_in("b")],
            [],
            [event_in("a", payload={}), event_in("c")],
        ]
    )
    accepted, conflict = Recorded.ACCEPTED, Recorded.CONFLICT
    assert answers == [[accepted, accepted], [], [conflict, accepted]]


def test_request_that_cannot_be_stored_fails_alone() -> None:
    answers, _ = submit_all([[event_in("a")], [unstorable("bad")], [event_in("b")]])
    assert answers[0] == answers[2] == [Recorded.ACCEPTED]
    assert isinstance(answers[1], psycopg.Error)
    assert set(Event.objects.values_list("event_id", flat=True)) == {"a", "b"}


def test_row_somebody_holds_keeps_only_its_own_request_waiting() -> None:
    async def main() -> list[Any]:
        committer = Counting()
        requests = [[event_in("held")], [event_in("a")], [event_in("b")]]
        answers = await asyncio.gather(
            *(committer.submit(items, Rules()) for items in requests), return_exceptions=True
        )
        await asyncio.sleep(0.02)
        await committer.close()
        return answers

    submit([event_in("earlier")])  # its type is no news, so the holder holds the event alone
    with transaction.atomic():
        submit([event_in("held")])
        held, *others = asyncio.run(main())
        transaction.set_rollback(True)
    assert isinstance(held, psycopg.errors.LockNotAvailable)
    assert others == [[Recorded.ACCEPTED]] * 2


def test_group_ends_where_its_bytes_are_enough() -> None:
    async def main() -> list[int]:
        committer = Counting()
        size = 5_000_000
        await asyncio.gather(
            *(committer.submit([event_in(f"e{n}")], Rules(), size) for n in range(8))
        )
        await asyncio.sleep(0.02)
        await committer.close()
        return committer.sizes

    assert asyncio.run(main()) == [3, 3, 2]


def test_request_that_finds_too_many_bytes_waiting_is_told_to_come_back() -> None:
    async def main() -> list[Any]:
        committer = Counting()
        size = 5_000_000
        answers = await asyncio.gather(
            *(committer.submit([event_in(f"e{n}")], Rules(), size) for n in range(20)),
            return_exceptions=True,
        )
        await asyncio.sleep(0.02)
        await committer.close()
        return [getattr(answer, "code", "kept") for answer in answers]

    assert asyncio.run(main()) == ["kept"] * 14 + ["overloaded"] * 6


def test_request_that_was_given_up_is_not_kept() -> None:
    async def main() -> None:
        committer = Counting()
        first = asyncio.create_task(committer.submit([event_in("a")], Rules()))
        given_up = asyncio.create_task(committer.submit([event_in("b")], Rules()))
        await asyncio.sleep(0)
        given_up.cancel()
        await first
        await asyncio.sleep(0.02)
        await committer.close()

    asyncio.run(main())
    assert set(Event.objects.values_list("event_id", flat=True)) == {"a"}


def test_large_requests_do_not_pile_up_in_one_statement() -> None:
    requests = [[event_in(f"{r}-{n}") for n in range(900)] for r in range(3)]
    _, sizes = submit_all(requests)
    assert sizes == [1_800, 900]


def test_connection_that_died_meanwhile_is_replaced() -> None:
    async def main() -> list[Any]:
        committer = Counting()
        first = await committer.submit([event_in("a")], Rules())
        await asyncio.to_thread(_end_other_connections)
        second = await committer.submit([event_in("b")], Rules())
        await asyncio.sleep(0.02)
        await committer.close()
        return [first, second]

    assert asyncio.run(main()) == [[Recorded.ACCEPTED], [Recorded.ACCEPTED]]


def test_database_that_is_away_is_an_error_to_all_and_to_nobody_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = connections["default"].settings_dict

    async def main() -> list[Any]:
        committer = Counting()
        with monkeypatch.context() as away:
            away.setitem(settings, "PORT", "1")
            lost = await asyncio.gather(
                *(committer.submit([event_in(f"x{n}")], Rules()) for n in range(3)),
                return_exceptions=True,
            )
        back = await committer.submit([event_in("back")], Rules())
        await asyncio.sleep(0.02)
        await committer.close()
        return [*lost, back]

    *lost, back = asyncio.run(main())
    assert all(isinstance(error, psycopg.OperationalError) for error in lost)
    assert back == [Recorded.ACCEPTED]


def _end_other_connections() -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
    finally:
        connection.close()

"""Calls on the event loop: what shares a commit, and what must not hold it up."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from common.clock import now
from tests.webhooks.amazon import Amazon
from tests.webhooks.fixtures import fixture
from tests.webhooks.postmark import payload
from tests.webhooks.signing import BASIC, CERTIFICATES, SIGNERS, body_of
from webhooks import receipts
from webhooks.asgi import Intake
from webhooks.authenticity import own_path
from webhooks.models import Receipt
from webhooks.reading import hash_id

pytestmark = pytest.mark.django_db(transaction=True)

Call = Callable[..., Awaitable[int]]


def with_intake(work: Callable[[Call], Awaitable[Any]]) -> Any:
    """What `work` returns, given a function that makes a genuine call and tells its status."""

    async def main() -> Any:
        intake = Intake()
        transport = httpx.ASGITransport(app=intake)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

            async def call(provider: str, document: Any, number: int = 0, token: str = "") -> int:
                headers, body = SIGNERS[provider](body_of(provider, document), now(), number)
                path = f"/webhooks/{provider}/{token}"
                return (await client.post(path, headers=headers, content=body)).status_code

            try:
                return await work(call)
            finally:
                await asyncio.sleep(0.02)
                if intake._receipts._connection is not None:
                    await intake._receipts._connection.close()

    return asyncio.run(main())


def test_calls_that_come_at_once_share_a_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counting(told: Sequence[Any]) -> Any:
        sizes.append(len(told))
        return receipts.keep(told)

    monkeypatch.setattr("webhooks.asgi.keep", counting)

    async def work(call: Call) -> list[int]:
        return await asyncio.gather(*(call("postmark", payload("open", ID=n)) for n in range(30)))

    assert with_intake(work) == [200] * 30
    assert Receipt.objects.count() == 30
    assert sum(sizes) == 30
    assert len(sizes) < 30


def test_call_that_cannot_be_stored_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_nul(kind: str, *identity: object) -> str:
        return hash_id(kind, *identity) + ("\x00" if "poison" in identity else "")

    monkeypatch.setattr("webhooks.providers.postmark.hash_id", with_nul)

    async def work(call: Call) -> list[int]:
        ids = [1, "poison", 3]
        return await asyncio.gather(*(call("postmark", payload("open", ID=n)) for n in ids))

    assert with_intake(work) == [200, 503, 200]
    assert Receipt.objects.count() == 2


@pytest.fixture
def drip(sns_server: Amazon, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Has that certificate drip in until the server's `drip` is zero again, and be none. No
    deadline ends it before the other calls have had their turn."""
    monkeypatch.setattr("webhooks.fetching._DEADLINE", 120.0)

    def start(number: int) -> None:
        sns_server.answers[urlsplit(CERTIFICATES[number]).path] = 200, {}, b"x" * 20_000
        sns_server.drip = 0.01

    return start


def test_certificate_that_drips_in_holds_no_other_call_up(
    sns_server: Amazon, drip: Callable[[int], None]
) -> None:
    drip(0)

    async def work(call: Call) -> list[bool | int]:
        event = fixture("ses", "event_bounce")
        slow = asyncio.create_task(call("ses", event))
        while not sns_server.asked:
            await asyncio.sleep(0.01)
        quick = await call("postmark", payload("delivery"))
        is_done, sns_server.drip = slow.done(), 0.0
        return [quick, is_done, await slow]

    assert with_intake(work) == [200, False, 503]


def test_call_whose_certificate_is_known_is_not_kept_waiting_by_a_strangers(
    sns_server: Amazon, drip: Callable[[int], None]
) -> None:
    async def work(call: Call) -> list[Any]:
        event = fixture("ses", "event_bounce")
        first = await call("ses", event)
        drip(1)
        # More than there are threads.
        slow = [asyncio.create_task(call("ses", event, 1)) for _ in range(20)]
        while len(sns_server.asked) < 2:
            await asyncio.sleep(0.01)
        second = await call("ses", fixture("ses", "event_open"))
        is_done, sns_server.drip = all(task.done() for task in slow), 0.0
        return [first, second, is_done, set(await asyncio.gather(*slow))]

    assert with_intake(work) == [200, 200, False, {503}]
    assert Receipt.objects.count() == 2


def test_path_nobody_can_guess_is_looked_at_here_too() -> None:
    own, others = (own_path(name, BASIC[0]) for name in ("postmark", "brevo"))

    async def work(call: Call) -> list[int]:
        return [
            await call("postmark", payload("open"), token=token)
            for token in (own, f"{own}/", others, f"{others}/")
        ]

    assert with_intake(work) == [200, 200, 401, 401]
    scope = {"type": "http", "method": "POST", "scheme": "https", "headers": []}
    for path, served in ((f"/webhooks/postmark/{own}/", True), ("/webhooks/postmark/x/", False)):
        assert Intake().serves({**scope, "path": path}) == served

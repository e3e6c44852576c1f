"""The front door: what reaches Django, and in which shape."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User

from common.api import ApiError
from emailauto.asgi import _replayed, _with_length
from events import bodies
from events.bodies import read_body
from tests.events.serving import serving

HTTP: dict[str, Any] = {"type": "http", "query_string": b"", "headers": []}


def body_of(*messages: dict[str, Any], limit: int = 10, headers: Any = ()) -> bytes:
    waiting = iter(messages)

    async def receive() -> dict[str, Any]:
        message = next(waiting, None)
        if message is None:
            await asyncio.sleep(60)
        assert message is not None
        return message

    return asyncio.run(read_body(headers, receive, limit=limit, seconds=0.05))


def chunk(data: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


def test_body_of_exactly_the_limit_is_read() -> None:
    assert body_of(chunk(b"12345"), chunk(b"67890", more=False)) == b"1234567890"


@pytest.mark.parametrize(
    ("messages", "status", "code"),
    [
        ([chunk(b"12345"), chunk(b"678901")], 413, "too_large"),
        ([chunk(b"1")], 408, "timeout"),
        ([chunk(b"1"), {"type": "http.disconnect"}], 400, "unreadable"),
    ],
)
def test_body_that_does_not_come_whole_is_refused(
    messages: list[dict[str, Any]], status: int, code: str
) -> None:
    with pytest.raises(ApiError) as caught:
        body_of(*messages)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert bodies._in_flight == 0


def test_announced_length_is_believed_without_reading() -> None:
    with pytest.raises(ApiError) as caught:
        body_of(headers=[(b"content-length", b"11")])
    assert caught.value.status_code == 413


def test_too_many_bodies_at_once_are_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_in_flight", 128 * 1024 * 1024)
    with pytest.raises(ApiError) as caught:
        body_of(chunk(b"1", more=False))
    assert (caught.value.status_code, caught.value.wait) == (503, 2)
    assert bodies._in_flight == 128 * 1024 * 1024


def test_django_sees_the_length_that_arrived_and_no_ambiguous_header() -> None:
    headers = [
        (b"host", b"h"),
        (b"transfer-encoding", b"chunked"),
        (b"content-length", b"999"),
        (b"x_forwarded_proto", b"https"),
    ]
    scope = _with_length({**HTTP, "headers": headers}, 3)
    assert scope["headers"] == [(b"host", b"h"), (b"content-length", b"3")]
    message = asyncio.run(_replayed(b"abc")())
    assert message == {"type": "http.request", "body": b"abc", "more_body": False}


@pytest.fixture(scope="module")
def server(django_db_setup: None) -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.mark.xdist_group("clients")
@pytest.mark.django_db(transaction=True)
def test_person_logs_in_and_gets_static_files(server: str) -> None:
    User.objects.create_superuser("ada", password="a long password")
    with httpx.Client(base_url=server, follow_redirects=True, timeout=60) as browser:
        page = browser.get("/admin/login/")
        form = {
            "username": "ada",
            "password": "a long password",
            "csrfmiddlewaretoken": page.cookies["csrftoken"],
        }
        home = browser.post("/admin/login/?next=/admin/", data=form)
        assert (home.status_code, "Log out" in home.text) == (200, True)
        styles = re.findall(r'href="(/static/[^"]+\.css)"', home.text)
        assert styles
        assert {browser.get(path).status_code for path in styles} == {200}


@pytest.mark.xdist_group("clients")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", ["/api/v1/events", "/api/v1/nothing", "/nothing", "/"])
def test_method_that_is_not_for_the_path_is_no_server_error(server: str, path: str) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert httpx.request(method, f"{server}{path}", timeout=60).status_code < 500

"""The HTTP client that mail leaves through. What servers do to its calls: `test_esp_faults`."""

import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from delivery.backends import client as module
from delivery.backends.client import Client, Request
from delivery.verdicts import Blame, HandoverError, Outcome
from tests.delivery import fakeesp
from tests.delivery.fakeesp import Answer, FakeESP, fake_esp


@pytest.fixture
def http() -> Iterator[Client]:
    client = Client()
    yield client
    client.close()


@pytest.fixture(autouse=True)
def _no_memory() -> Iterator[None]:
    module._proxy.cache_clear()
    yield
    module._proxy.cache_clear()
    module._trust.cache_clear()


def posted(
    http: Client, url: str, *, times: int = 1, key: str = "k"
) -> list[requests.Response | HandoverError]:
    found: list[requests.Response | HandoverError] = []

    async def work() -> None:
        for _ in range(times):
            try:
                found.append(await http.post(Request(url, {"X-Key": key}, b'{"a": 1}')))
            except HandoverError as error:
                found.append(error)

    http.start(work()).result(30)
    return found


def test_answer_is_as_anymail_reads_them(http: Client) -> None:
    with fake_esp() as esp:
        esp.usual = Answer(422, {"ErrorCode": 406, "Message": "né"}, {"X-Odd": "1"})
        (answer,) = posted(http, f"{esp.url}/email")
    assert isinstance(answer, requests.Response)
    assert (answer.status_code, answer.headers["x-odd"]) == (422, "1")
    assert answer.json() == {"ErrorCode": 406, "Message": "né"}
    assert esp.requests[0][1] == b'{"a": 1}'


def test_connection_is_kept_for_the_next_call(http: Client) -> None:
    with fake_esp() as esp:
        posted(http, esp.url, times=5)
        assert (esp.connections, len(esp.requests)) == (1, 5)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy"])
def test_proxy_of_the_environment_is_used(
    http: Client, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with fake_esp() as proxy:
        monkeypatch.setenv(variable, proxy.url)
        monkeypatch.setenv("NO_PROXY", "")
        posted(http, "http://mail.invalid/email")
        assert len(proxy.requests) == 1


def test_proxy_is_passed_by_where_the_environment_says_so(
    http: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_esp() as proxy, fake_esp() as esp:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        posted(http, esp.url)
        assert (len(proxy.requests), len(esp.requests)) == (0, 1)


@pytest.mark.parametrize("is_there", [True, False])
def test_proxy_that_does_not_let_through_leaves_no_doubt(
    http: Client, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    with fake_esp() as proxy:  # which does not know CONNECT
        monkeypatch.setenv("HTTPS_PROXY", proxy.url if is_there else "http://127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", "")
        (error,) = posted(http, "https://mail.invalid/email")
    assert isinstance(error, HandoverError)
    assert (error.verdict.outcome, error.verdict.blame) == (Outcome.RETRY, Blame.ROUTE)


@pytest.mark.parametrize("url", ["nonsense", "http://", "http://[::1"])
def test_url_that_is_none_leaves_no_doubt(http: Client, url: str) -> None:
    (error,) = posted(http, url)
    assert isinstance(error, HandoverError)
    assert error.verdict.outcome == Outcome.RETRY


@pytest.mark.parametrize("key", ["k\n", "k\r\nX-Evil: 1", "k\0"])
def test_header_that_cannot_be_written_leaves_no_doubt(http: Client, key: str) -> None:
    with fake_esp() as esp:
        (error,) = posted(http, esp.url, key=key)
        assert esp.requests == []
    assert isinstance(error, HandoverError)
    assert (error.verdict.outcome, error.verdict.blame) == (Outcome.RETRY, Blame.ROUTE)


def test_list_of_certificates_that_is_not_there_leaves_no_doubt(
    http: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file.pem")
    module._trust.cache_clear()
    with fake_esp() as esp:
        (error,) = posted(http, esp.url)
        assert esp.requests == []
    assert isinstance(error, HandoverError)
    assert (error.verdict.outcome, error.verdict.blame) == (Outcome.RETRY, Blame.ROUTE)


def test_proxy_that_hangs_up_before_the_server_has_heard_leaves_no_doubt(
    http: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def hang_up() -> None:
            peer, _ = proxy.accept()
            with peer:
                peer.recv(4096)

        thread = threading.Thread(target=hang_up)
        thread.start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        (error,) = posted(http, "https://api.example/email")
        thread.join()
    assert isinstance(error, HandoverError)
    assert (error.verdict.outcome, error.verdict.blame) == (Outcome.RETRY, Blame.ROUTE)


def test_server_that_does_not_take_the_connection_leaves_no_doubt(
    http: Client, settings: Any
) -> None:
    settings.EMAIL_TIMEOUT = 1
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        # The queue is full; what comes now is not even refused.
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        (error,) = posted(http, f"http://127.0.0.1:{port}/email")
        for one in waiting:
            one.close()
    assert isinstance(error, HandoverError)
    assert error.verdict.outcome == Outcome.RETRY


def test_timeout_is_that_of_the_moment_of_the_call(http: Client, settings: Any) -> None:
    with fake_esp() as esp:
        posted(http, esp.url)
        settings.EMAIL_TIMEOUT = 0.2
        esp.script = [Answer(seconds=3)]
        (error,) = posted(http, esp.url)
    assert isinstance(error, HandoverError)
    assert error.verdict.outcome == Outcome.UNKNOWN


@pytest.mark.parametrize("flood", [fakeesp.endless, fakeesp.gzip_bomb])
def test_answer_that_is_too_large_is_cut_off(http: Client, flood: Any) -> None:
    with fake_esp() as esp:
        esp.script = [Answer(do=flood)]
        (answer,) = posted(http, esp.url)
    assert isinstance(answer, requests.Response)
    assert answer.status_code == 200
    assert set(answer.content) == {ord("x")}
    assert len(answer.content) <= module.MOST_BYTES


def test_connection_with_the_rest_of_an_answer_is_not_used_again(http: Client) -> None:
    with fake_esp() as esp:
        esp.script = [Answer(do=fakeesp.endless)]
        _, answer = posted(http, esp.url, times=2)
        assert esp.connections == 2
    assert isinstance(answer, requests.Response)
    assert answer.json()["MessageID"] == "esp-1"


def test_compressed_answer_is_read_although_nobody_asked_for_one(http: Client) -> None:
    import gzip

    packed = gzip.compress(b'{"id": "esp-1"}')
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    with fake_esp() as esp:
        esp.script = [Answer(do=lambda h: h.wfile.write(head % len(packed) + packed))]
        (answer,) = posted(http, esp.url)
    assert isinstance(answer, requests.Response)
    assert answer.json() == {"id": "esp-1"}


def test_forked_process_starts_anew(http: Client) -> None:
    with fake_esp() as esp:
        posted(http, esp.url)
        child = os.fork()
        if child == 0:
            http.forget()
            status = 1
            try:
                (answer,) = posted(http, esp.url)
                status = int(getattr(answer, "status_code", 0) != 200)
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert esp.connections == 2


def test_nothing_is_left_of_a_client_that_was_closed() -> None:
    http = Client()
    with fake_esp() as esp:
        posted(http, esp.url)
        http.close()
        assert posted_again(http, esp)
    http.close()


def posted_again(http: Client, esp: FakeESP) -> bool:
    before = threading.active_count()
    posted(http, esp.url)
    return esp.connections == 2 and threading.active_count() >= before

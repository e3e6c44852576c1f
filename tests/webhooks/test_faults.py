"""Providers and strangers against the real server: what goes wrong on the way, and at ours."""

import gzip
import json
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from common.clock import now
from delivery.models import Message
from tests.events.brokers import eventually
from tests.events.serving import serving
from tests.factories import MessageFactory
from tests.webhooks.fixtures import fixture, names
from tests.webhooks.postmark import payload
from tests.webhooks.signing import SIGNERS, body_of, settings_for_tests
from webhooks.models import Receipt
from webhooks.providers import ADAPTERS
from webhooks.services import drain_receipts

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("clients")]

# SNS's calls need Amazon's certificate: `test_asgi` has an Amazon for them.
PROVIDERS = sorted(set(SIGNERS) - {"ses"})


def environment() -> dict[str, str]:
    """The secrets of these tests, as a server reads them."""
    return {name: ",".join(values) for name, values in settings_for_tests().items()}


@pytest.fixture(scope="module")
def server(django_db_setup: None) -> Iterator[str]:
    with serving(**environment()) as url:
        yield url


def genuine(provider: str, *documents: Any) -> tuple[dict[str, str], bytes]:
    """Headers and body of a call with a good proof."""
    told = documents or (fixture(provider, names(provider)[0]),)
    return SIGNERS[provider](body_of(provider, *told), now(), 0)


def call(server: str, provider: str, headers: dict[str, str], body: Any) -> httpx.Response:
    return httpx.post(f"{server}/webhooks/{provider}/", headers=headers, content=body, timeout=60)


class Wire:
    """A connection on which the head of a call is said, and then anything."""

    def __init__(self, server: str, provider: str, line: str, *, is_genuine: bool = True) -> None:
        url = urlsplit(server)
        self._socket = socket.create_connection((url.hostname, url.port), timeout=60)
        proof = genuine(provider)[0] if is_genuine else {}
        headers = [f"{name}: {value}" for name, value in proof.items()]
        head = [f"POST /webhooks/{provider}/ HTTP/1.1", "Host: localhost", line, *headers]
        self._socket.sendall("\r\n".join([*head, "", ""]).encode())

    def say(self, data: bytes) -> None:
        self._socket.sendall(data)

    def status(self) -> int:
        found = re.match(rb"HTTP/1.1 (\d+)", self._socket.recv(4096))
        assert found is not None
        return int(found[1])

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


# --- What a call is -----------------------------------------------------------------------------


def test_genuine_call_of_each_provider_is_kept_byte_for_byte(server: str) -> None:
    for provider in PROVIDERS:
        headers, body = genuine(provider)
        response = call(server, provider, headers, body)
        assert (response.status_code, response.json()) == (200, {"status": "kept"})
        kept = bytes(Receipt.objects.get(provider=provider).body)
        assert kept in body
        assert json.loads(kept) in (json.loads(body), *json.loads(body))


def test_forged_call_of_each_provider_is_refused(server: str) -> None:
    for provider in PROVIDERS:
        raw = body_of(provider, fixture(provider, names(provider)[0]))
        headers, body = SIGNERS[provider](raw, now(), 2)
        if provider == "mailgun":
            headers = {}
        response = call(server, provider, headers, body)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == 'Basic realm="webhooks"'
    assert not Receipt.objects.exists()


@pytest.mark.parametrize("content_type", ["", "text/plain", "multipart/form-data; boundary=x", "?"])
def test_w11_content_type_does_not_matter(server: str, content_type: str) -> None:
    headers, body = genuine("postmark")
    response = call(server, "postmark", {**headers, "Content-Type": content_type}, body)
    assert response.status_code == 200
    assert Receipt.objects.get().content_type == content_type


def test_only_posts_to_providers_are_calls(server: str) -> None:
    assert httpx.get(f"{server}/webhooks/postmark/", timeout=60).status_code == 405
    assert call(server, "nobody", {}, b"{}").status_code == 404


# --- W11: bodies that are too large, endless, slow, or none -------------------------------------


def test_w11_body_announced_as_too_large_is_refused_before_it_is_sent(server: str) -> None:
    with Wire(server, "postmark", "Content-Length: 1048577") as wire:
        assert wire.status() == 413


def test_w11_stranger_is_refused_before_the_body_is_sent(server: str) -> None:
    with Wire(server, "postmark", "Content-Length: 1000", is_genuine=False) as wire:
        assert wire.status() == 401


def test_w11_endless_chunked_body_is_cut_off(server: str) -> None:
    chunk, sent = b"10000\r\n" + b" " * 0x10000 + b"\r\n", 0
    # It hangs up on us at some point.
    with Wire(server, "postmark", "Transfer-Encoding: chunked") as wire, suppress(OSError):
        while sent < 64 * 1024 * 1024:
            wire.say(chunk)
            sent += 0x10000
    assert sent < 32 * 1024 * 1024
    assert not Receipt.objects.exists()


def test_w11_chunked_call_is_an_ordinary_one(server: str) -> None:
    headers, body = genuine("sendgrid")
    assert call(server, "sendgrid", headers, iter([body[:9], body[9:]])).status_code == 200
    assert Receipt.objects.count() == 1


def test_w11_slow_calls_hold_nobody_up_and_are_to_be_made_again(server: str) -> None:
    with ExitStack() as stack:
        slow = {
            provider: [
                stack.enter_context(Wire(server, provider, "Content-Length: 900"))
                for _ in range(20)
            ]
            for provider in ("brevo", "postmark")
        }
        for wire in (wire for wires in slow.values() for wire in wires):
            wire.say(b'{"event":')
        assert call(server, "postmark", *genuine("postmark")).status_code == 200
        told = {provider: {wire.status() for wire in wires} for provider, wires in slow.items()}
    assert told == {"brevo": {429}, "postmark": {503}}
    assert Receipt.objects.count() == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"a": "\xff\xfe"}', id="invalid-utf8"),
        pytest.param(b"[" * 500_000, id="deep-array"),
        pytest.param(b'{"a":' * 150_000, id="deep-object"),
        pytest.param(b"a=1&b=2", id="form"),
        pytest.param(gzip.compress(b" " * 50_000_000), id="gzip-bomb"),
    ],
)
def test_w11_body_that_is_no_json_kills_nobody(server: str, body: bytes) -> None:
    """It is kept as it came: packed, it is not unpacked."""
    headers, _ = genuine("postmark")
    packed = {"Content-Encoding": "gzip"} if body[:2] == b"\x1f\x8b" else {}
    assert call(server, "postmark", {**headers, **packed}, body).status_code == 200
    assert bytes(Receipt.objects.get().body) == body
    assert call(server, "postmark", *genuine("postmark")).status_code == 200
    while drain_receipts(budget=60):
        pass
    states = dict(Receipt.objects.values_list("provider_event_id", "state"))
    assert sorted(states.values()) == ["parked", "pending"]


# --- W01, W05, W08: twice, many, and once only --------------------------------------------------


def test_w01_call_made_46_times_at_once_is_one_receipt(server: str) -> None:
    headers, body = genuine("postmark")
    with ThreadPoolExecutor(23) as pool:
        answers = pool.map(lambda _: call(server, "postmark", headers, body).status_code, range(46))
        assert set(answers) == {200}
    assert Receipt.objects.count() == 1


def test_w05_bad_event_among_a_thousand_costs_no_other(server: str) -> None:
    event = fixture("sendgrid", "bounce")
    events = [{**event, "sg_event_id": f"event-{number}"} for number in range(1_000)]
    events[500] = ["no event"]
    assert call(server, "sendgrid", *genuine("sendgrid", *events)).status_code == 200
    while drain_receipts(budget=60):
        pass
    assert Receipt.objects.filter(state="parked").count() == 999
    (bad,) = Receipt.objects.exclude(state="parked")
    assert bytes(bad.body) == b'["no event"]'
    assert "Malformed" in bad.error


def test_w08_signature_used_for_many_bodies_at_once_is_good_for_one(server: str) -> None:
    document = fixture("mailgun", "failed_permanent")
    headers, first = genuine("mailgun", document)
    signature = json.loads(first)["signature"]

    def forged(number: int) -> int:
        event = {**document["event-data"], "recipient": f"victim-{number}@example.com"}
        body = json.dumps({"signature": signature, "event-data": event}).encode()
        return call(server, "mailgun", headers, body).status_code

    with ThreadPoolExecutor(20) as pool:
        answers = sorted(pool.map(forged, range(20)))
    assert answers == [200] + [401] * 19
    assert Receipt.objects.count() == 1


# --- W06, and what a provider must never be told ------------------------------------------------


def failures(url: str) -> dict[str, int]:
    """What each provider is answered, all of them calling at once."""
    with ThreadPoolExecutor(len(PROVIDERS)) as pool:
        answers = pool.map(lambda name: call(url, name, *genuine(name)), PROVIDERS)
        told = dict(zip(PROVIDERS, answers, strict=True))
    assert all(int(answer.headers["retry-after"]) > 0 for answer in told.values())
    return {provider: answer.status_code for provider, answer in told.items()}


@pytest.mark.parametrize("hangs", [False, True])
def test_w06_database_away_makes_each_provider_call_again(hangs: bool) -> None:
    with socket.socket() as database:
        database.bind(("127.0.0.1", 0))
        if hangs:  # it takes connections and never says a word
            database.listen(16)
        port = database.getsockname()[1]
        url = f"postgresql://nobody:nothing@127.0.0.1:{port}/none"
        with serving(**environment(), DATABASE_URL=url) as server:
            told = failures(server)
    assert told == {provider: ADAPTERS[provider].failure_status for provider in PROVIDERS}
    assert told["brevo"] == 429
    assert set(told.values()) == {429, 503}


def test_what_was_answered_200_outlives_the_server() -> None:
    message = MessageFactory(state="sent")
    told, numbers = [], count()
    with serving(**environment()) as server:

        def keep_calling() -> None:
            headers = genuine("postmark")[0]
            with (
                httpx.Client(base_url=server, headers=headers, timeout=60) as client,
                suppress(httpx.HTTPError),
            ):
                for number in numbers:
                    document = payload("bounce_HardBounce", message, ID=number)
                    response = client.post("/webhooks/postmark/", json=document)
                    assert response.status_code == 200
                    told.append(number)

        threads = [threading.Thread(target=keep_calling) for _ in range(8)]
        for thread in threads:
            thread.start()
        assert eventually(lambda: len(told) >= 200)
        for process in _processes_of(server):
            process.kill()
        for thread in threads:
            thread.join()
    kept = {json.loads(bytes(receipt.body))["ID"] for receipt in Receipt.objects.all()}
    assert set(told) <= kept
    while drain_receipts(budget=60):
        pass
    assert Message.objects.get().bounced_at is not None


def _processes_of(server: str) -> list[psutil.Process]:
    port = str(urlsplit(server).port)
    children = psutil.Process().children(recursive=True)
    roots = [child for child in children if port in " ".join(child.cmdline())]
    return roots + [child for root in roots for child in root.children(recursive=True)]

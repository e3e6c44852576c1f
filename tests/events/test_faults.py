"""The fault catalogue's payloads, against the real server: each answered, nothing lost, no 5xx."""

import itertools
import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from django.db import connection

from campaigns import engine
from common.clock import now, to_milliseconds
from contacts.conditions import OPERATORS
from contacts.models import Contact
from delivery.engine import drain
from delivery.models import Message, SandboxMail
from delivery.states import Stream
from events.dead_letters import replay_dead
from events.models import ApiKey, Event, EventType, SeenType
from tests.events.serving import serving
from tests.factories import CampaignFactory, EventFactory, event_document, make_api_key

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("clients")]


_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(django_db_setup: None) -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def token(db: None) -> str:
    # A source of its own: the server remembers for a second what the last test's has posted.
    return make_api_key(rate_limit=0, source=f"source-{next(_numbers)}")[1]


@pytest.fixture
def client(server: str, token: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with httpx.Client(base_url=server, headers=headers, timeout=60) as client:
        yield client


def post(client: httpx.Client, body: Any, **headers: str) -> httpx.Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post("/api/v1/events", content=raw, headers=headers)


def refusal(response: httpx.Response) -> tuple[int, str, str]:
    """Status, code, and the path of the first problem; every refusal has the one shape."""
    body = response.json()
    assert set(body) == {"code", "message", "details"}
    path = body["details"][0]["path"] if body["details"] else ""
    return response.status_code, body["code"], path


def with_payload(**payload: Any) -> dict[str, Any]:
    return event_document("e1", payload=payload)


class Wire:
    """A connection on which anything may be said."""

    def __init__(
        self, server: str, token: str, *headers: str, path: str = "/api/v1/events"
    ) -> None:
        url = urlsplit(server)
        self._socket = socket.create_connection((url.hostname, url.port), timeout=60)
        lines = [f"POST {path} HTTP/1.1", "Host: localhost", *headers]
        if token:
            lines.append(f"Authorization: Bearer {token}")
        self.say("\r\n".join([*lines, "", ""]).encode())

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


# --- A01: bodies that are too large, endless, false or slow ------------------------------------


def test_a01_body_announced_as_too_large_is_refused_before_it_is_sent(
    server: str, token: str
) -> None:
    with Wire(server, token, "Content-Length: 10485760") as wire:
        assert wire.status() == 413


def test_a01_stranger_is_refused_before_the_body_is_sent(server: str) -> None:
    with Wire(server, "emauto_live_aaaaaaaa_" + "b" * 40, "Content-Length: 1000000") as wire:
        assert wire.status() == 401


def test_a01_endless_chunked_body_is_cut_off(server: str, token: str) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    sent = 0
    # It hangs up on us at some point.
    with Wire(server, token, "Transfer-Encoding: chunked") as wire, suppress(OSError):
        while sent < 64 * 1024 * 1024:
            wire.say(chunk)
            sent += 0x10000
    assert sent < 32 * 1024 * 1024


def test_a01_chunked_body_is_an_ordinary_one(client: httpx.Client) -> None:
    raw = json.dumps(event_document("chunked")).encode()
    response = client.post("/api/v1/events", content=iter([raw[:20], raw[20:]]))
    assert response.status_code == 202


def test_a01_body_shorter_than_announced_stores_nothing(server: str, token: str) -> None:
    with Wire(server, token, "Content-Length: 5000") as wire:
        wire.say(json.dumps(event_document("short")).encode())
    time.sleep(0.2)
    assert not Event.objects.exists()


def test_a01_body_longer_than_announced_is_not_taken_for_its_rest(server: str, token: str) -> None:
    raw = json.dumps(event_document("long")).encode()
    with Wire(server, token, f"Content-Length: {len(raw)}") as wire:
        wire.say(raw + b" and more")
        assert wire.status() == 202
    assert Event.objects.count() == 1


def test_a01_slow_clients_hold_nobody_up_and_are_told(
    server: str, token: str, client: httpx.Client
) -> None:
    # More than there are threads, on the way of the events and on that of the pages.
    with ExitStack() as stack:
        slow = [
            stack.enter_context(Wire(server, token, "Content-Length: 1000", path=path))
            for path in ("/api/v1/events", "/admin/login/")
            for _ in range(30)
        ]
        for wire in slow:
            wire.say(b'{"event_id"')
        assert post(client, event_document("quick")).status_code == 202
        assert client.get("/healthz").status_code == 200
        assert {wire.status() for wire in slow[:3]} == {408}


def test_a01_body_that_outlives_its_key_is_not_taken(server: str, token: str) -> None:
    raw = json.dumps(event_document("outlived")).encode()
    with Wire(server, token, f"Content-Length: {len(raw)}") as wire:
        wire.say(raw[:-1])
        time.sleep(0.3)
        ApiKey.objects.update(revoked_at=now())
        time.sleep(1.3)  # a known key is believed for a second
        wire.say(raw[-1:])
        assert wire.status() == 401
    assert not Event.objects.exists()


def test_a01_memory_stays_flat(server: str, client: httpx.Client) -> None:
    port = urlsplit(server).port
    processes = [
        process
        for process in psutil.Process().children(recursive=True)
        if str(port) in " ".join(process.cmdline())
    ]
    processes += [child for process in processes for child in process.children(recursive=True)]
    bodies = (b" " * 5_000_000, b"[" * 5_000_000, b'{"a":' * 1_000_000, b'"' * 5_000_000)
    for body in bodies:
        assert post(client, body).status_code == 400
    before = sum(process.memory_info().rss for process in processes)
    for body in bodies * 5:
        post(client, body)
    for _ in range(10):
        with pytest.raises(httpx.HTTPError):
            post(client, b" " * 50_000_000).raise_for_status()
    after = sum(process.memory_info().rss for process in processes)
    assert processes
    assert after - before < 64 * 1024 * 1024


# --- A02 to A08: what JSON can say and PostgreSQL or people cannot bear -------------------------


@pytest.mark.parametrize("depth", [2_000, 100_000])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_a02_deep_nesting_is_refused(client: httpx.Client, opening: bytes, depth: int) -> None:
    assert refusal(post(client, opening * depth))[:2] == (400, "invalid_json")


def test_a02_nesting_the_decoder_can_bear_is_refused_with_its_path(client: httpx.Client) -> None:
    payload: Any = 1
    for _ in range(200):
        payload = {"a": payload}
    status, code, path = refusal(post(client, event_document("e1", payload=payload)))
    assert (status, code) == (400, "invalid")
    assert path.startswith("payload.a.a.a")


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({str(n): n for n in range(50_000)}, "payload"),
        ({"order": {str(n): n for n in range(201)}}, "payload.order"),
        ({"k" * 1_000_000: 1}, "payload." + "k" * 20 + "…"),
        ({"lines": [{"": 1}]}, "payload.lines.0"),
        ({"note": "x" * 32_769}, "payload.note"),
    ],
)
def test_a03_object_beyond_the_limits_is_refused_with_its_path(
    client: httpx.Client, payload: dict[str, Any], path: str
) -> None:
    assert refusal(post(client, event_document("e1", payload=payload))) == (400, "invalid", path)


def test_a03_key_that_stands_twice_is_refused(client: httpx.Client) -> None:
    body = json.dumps(event_document("e1")).replace('"name"', '"email"').encode()
    assert refusal(post(client, body))[:2] == (400, "invalid_json")


def test_a03_many_keys_with_one_twice_are_refused_at_once(client: httpx.Client) -> None:
    body = "{" + ",".join(f'"{n}":1' for n in range(400_000)) + ',"7":1}'
    response = client.post("/api/v1/events", content=body.encode())
    assert refusal(response)[:2] == (400, "invalid_json")


def test_a03_names_that_mean_something_elsewhere_are_plain_keys(client: httpx.Client) -> None:
    payload = {"__proto__": {"a": 1}, "class": 2, "self": 3, "_meta": 4, "constructor": 5}
    assert post(client, with_payload(**payload)).status_code == 202
    assert Event.objects.get().payload == payload


@pytest.mark.parametrize(
    "change",
    [
        {"payload": {"a": "\x00"}},
        {"payload": {"\x00": "a"}},
        {"payload": {"a": [[{"b": "x\x00y"}]]}},
        {"event_id": "\x00"},
        {"event_type": "a\x00"},
        {"user_id": "a\x00"},
        {"metadata": {"a": "\x00"}},
    ],
)
def test_a04_nul_is_refused_wherever_it_stands(
    client: httpx.Client, change: dict[str, Any]
) -> None:
    assert post(client, {**event_document("e1"), **change}).status_code == 400
    good = event_document("good")
    response = post(client, [good, {**event_document("e2"), **change}])
    assert response.status_code == 400  # the document is none that can be stored
    assert not Event.objects.exists()


def test_a04_nul_in_a_query_is_no_server_error(client: httpx.Client) -> None:
    assert client.get("/api/v1/messages?event_id=%00").status_code in (400, 403)
    assert client.get("/admin/?q=%00&next=%ff%fe").status_code < 500


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(rb'{"a": "\ud800"}', id="a05-lone-surrogate"),
        pytest.param(rb'{"\udc00": 1}', id="a05-lone-surrogate-key"),
        pytest.param(b'{"a": "\xff\xfe"}', id="a06-invalid-utf8"),
        pytest.param(b'{"a": "\xc3"}', id="a06-cut-utf8"),
        pytest.param(b"\xef\xbb\xbf{}", id="a06-bom"),
        pytest.param('{"a": "ü"}'.encode("latin-1"), id="a06-latin1"),
        pytest.param('{"a": 1}'.encode("utf-16"), id="a06-utf16"),
        pytest.param(b'{"a": NaN}', id="a07-nan"),
        pytest.param(b'{"a": Infinity}', id="a07-infinity"),
        pytest.param(b'{"a": 1e999}', id="a07-1e999"),
        pytest.param(b'{"a": ' + b"9" * 5_000 + b"}", id="a07-5000-digits"),
    ],
)
def test_text_that_is_no_storable_json_is_refused(client: httpx.Client, raw: bytes) -> None:
    assert refusal(post(client, raw))[:2] == (400, "invalid_json")


def test_a07_numbers_at_the_edge_are_kept_or_refused_never_bent(client: httpx.Client) -> None:
    kept = {"a": 2**63, "b": -(2**63), "c": -0.0, "d": 1e-20, "e": 10**21}
    assert post(client, with_payload(**kept)).status_code == 202
    assert Event.objects.get().payload == kept
    for number in (10**22, -1e22, 1e-300):
        refused = post(client, event_document("e2", payload={"a": number}))
        assert refusal(refused) == (400, "invalid", "payload.a")


def test_a08_any_script_is_stored_as_it_is(client: httpx.Client) -> None:
    names = {
        "emoji": "👩‍👩‍👧‍👦",
        "rtl": "‮evil‬",
        "marks": "Z" + "̸" * 10_000,
        "alike": "Аdа",  # Cyrillic letters among Latin ones
        "cjk": "山田太郎",
    }
    assert post(client, with_payload(**names)).status_code == 202
    assert Event.objects.get().payload == names


# --- A09, A10: addresses and headers ------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ('"a b"@example.com', ""),
        ("a@[127.0.0.1]", ""),
        ("a@localhost", ""),
        ("a" * 250 + "@x.de", ""),
        ("a@example.com.", ""),
        ("a(comment)@example.com", ""),
        ("<a@example.com>", ""),
        ("a@example.com,b@example.com", ""),
        ("a@example.com\nBcc: b@example.com", ""),
        ("ü@example.com", "ü@example.com"),
        ("user@bücher.example", "user@xn--bcher-kva.example"),
    ],
)
def test_a09_field_holds_one_recipient_or_none(
    client: httpx.Client, text: str, address: str
) -> None:
    assert post(client, with_payload(email=text)).status_code == 202
    engine.process_batch(limit=10)
    assert Contact.objects.get().email == address


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\u2028", "\x0b", "\x0c", "%0d%0a"])
def test_a10_line_end_in_a_name_makes_no_header(client: httpx.Client, end: str) -> None:
    campaign = CampaignFactory()
    document = with_payload(email="a@example.com", name=f"A{end}Bcc: b@example.com{end}{end}<b>x")
    assert post(client, document).status_code == 202
    engine.process_batch(limit=10)
    drain(Stream(campaign.stream).value, budget=5)
    mail = SandboxMail.objects.get()
    head = bytes(mail.raw).partition(b"\r\n\r\n")[0]
    names = {line.partition(b":")[0].lower() for line in head.split(b"\r\n") if line[:1] > b" "}
    assert b"bcc" not in names
    assert mail.to_email == "a@example.com"
    assert Message.objects.get().state == "sent"


@pytest.mark.parametrize("field", ["event_id", "event_type", "user_id"])
@pytest.mark.parametrize("end", ["\r\n", "\x0b", "\x85"])
def test_a10_line_end_in_an_identifier_is_refused(
    client: httpx.Client, field: str, end: str
) -> None:
    document = {**event_document("e1"), field: f"a{end}b"}
    assert refusal(post(client, document)) == (400, "invalid", field)


# --- A11: times ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "timestamp", [1_790_000_000, "2026-11-24T10:00:00Z", 1.5, -1, 253_402_300_800_000, None, True]
)
def test_a11_what_is_no_unix_time_in_milliseconds_is_refused(
    client: httpx.Client, timestamp: Any
) -> None:
    document = {**event_document("e1"), "timestamp": timestamp}
    assert refusal(post(client, document)) == (400, "invalid", "timestamp")


def test_a11_event_of_1970_is_kept_with_its_time(client: httpx.Client) -> None:
    assert post(client, {**event_document("e1"), "timestamp": 0}).status_code == 202
    assert Event.objects.get().occurred_at == datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ahead", "is_believed"), [(timedelta(minutes=4), True), (timedelta(days=3_000), False)]
)
def test_a11_clock_far_ahead_is_flagged_and_counts_as_now(
    client: httpx.Client, ahead: timedelta, is_believed: bool
) -> None:
    stated = now() + ahead
    document = {**event_document("e1"), "timestamp": to_milliseconds(stated)}
    assert post(client, document).status_code == 202
    event = Event.objects.get()
    stated = stated.replace(microsecond=stated.microsecond // 1000 * 1000)
    if is_believed:
        assert (event.occurred_at, event.stated_at) == (stated, None)
    else:
        assert event.stated_at == stated
        assert abs(event.occurred_at - event.received_at) < timedelta(seconds=5)
    assert event.due_at <= now() + timedelta(seconds=5)


# --- A12, A13: twice, and many ------------------------------------------------------------------


def test_a12_same_id_with_another_body_is_a_conflict(client: httpx.Client) -> None:
    post(client, event_document("e1"))
    assert refusal(post(client, event_document("e1", payload={"a": 1})))[:2] == (409, "conflict")
    assert Event.objects.get().payload != {"a": 1}


def test_a12_same_body_under_another_id_is_another_event(client: httpx.Client) -> None:
    document = event_document("e1")
    assert post(client, document).status_code == 202
    assert post(client, {**document, "event_id": "e2"}).status_code == 202
    assert Event.objects.count() == 2


def test_a12_same_event_a_hundred_times_at_once_is_one_row(
    server: str, token: str, client: httpx.Client
) -> None:
    document = event_document("e1")

    def again(_: int) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {token}"}
        response = httpx.post(f"{server}/api/v1/events", json=document, headers=headers, timeout=60)
        return response.status_code, response.content

    with ThreadPoolExecutor(20) as pool:
        answers = set(pool.map(again, range(100)))
    assert answers == {(202, b'{"event_id":"e1","status":"accepted"}')}
    assert Event.objects.count() == 1


def test_a13_list_over_a_thousand_is_refused_whole(client: httpx.Client) -> None:
    response = post(client, [event_document(str(n)) for n in range(1_001)])
    assert refusal(response)[:2] == (413, "too_many")
    assert not Event.objects.exists()


def test_a13_bad_events_leave_their_neighbours_alone(client: httpx.Client) -> None:
    EventType.objects.create(
        name="Strict", schema={"type": "object", "properties": {"n": {"type": "integer"}}}
    )
    time.sleep(1.1)  # what the server believes about types
    misfit = event_document("misfit", event_type="Strict", payload={"n": "x"})
    response = post(client, [event_document("a"), {}, misfit, 7, event_document("b")])
    assert response.status_code == 202
    results = response.json()["results"]
    assert [(r["event_id"], r["status"], r.get("code")) for r in results] == [
        ("a", "accepted", None),
        (None, "invalid", "invalid"),
        ("misfit", "invalid", "schema"),
        (None, "invalid", "invalid"),
        ("b", "accepted", None),
    ]
    assert results[2]["details"][0]["path"] == "/2/n"
    assert Event.objects.count() == 2


def test_a13_request_whose_every_event_fits_is_accepted_at_full_size(
    client: httpx.Client,
) -> None:
    documents = [event_document(str(n), payload={"text": "x" * 4_000}) for n in range(1_000)]
    response = post(client, documents)
    assert {result["status"] for result in response.json()["results"]} == {"accepted"}
    assert Event.objects.count() == 1_000


# --- A14, A15: types ----------------------------------------------------------------------------


def test_a14_unknown_type_is_accepted_and_listed(client: httpx.Client) -> None:
    assert post(client, event_document("e1", event_type="NobodyKnows")).status_code == 202
    assert SeenType.objects.get().name == "NobodyKnows"


def test_a15_producer_that_puts_ids_into_names_is_stopped(client: httpx.Client) -> None:
    documents = [event_document(f"e{n}", event_type=f"Type{n}") for n in range(1_000)]
    assert post(client, documents).status_code == 202
    time.sleep(1.1)
    response = post(client, event_document("one-more", event_type="Type1001"))
    assert refusal(response)[:2] == (422, "too_many_types")
    assert post(client, event_document("known", event_type="Type7")).status_code == 202


# --- A16, A17, A19, A20: what happens to accepted events ----------------------------------------


def test_a16_two_ids_with_one_address_at_once_are_one_contact(client: httpx.Client) -> None:
    for n in range(20):
        document = event_document(f"e{n}", user_id=f"u{n % 2}", payload={"email": "a@example.com"})
        post(client, document)

    def process(_: int) -> None:
        try:
            while engine.process_batch(limit=3) or engine.process_batch(limit=1, retried=True):
                pass
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(process, range(4)))
    assert Event.objects.filter(state="ignored").count() == 20
    assert Contact.objects.filter(email_normalized="a@example.com").count() == 1
    assert Contact.objects.count() == 1


def test_a17_no_operator_runs_a_pattern() -> None:
    assert not {"regex", "matches", "like", "iregex"} & set(OPERATORS)


def test_a17_pattern_of_a_schema_takes_linear_time(client: httpx.Client) -> None:
    schema = {"type": "object", "properties": {"t": {"type": "string", "pattern": "^(a+)+$"}}}
    EventType.objects.create(name="Slow", schema=schema)
    time.sleep(1.1)
    response = post(
        client, event_document("e1", event_type="Slow", payload={"t": "a" * 9_999 + "!"})
    )
    assert refusal(response) == (422, "schema", "/t")


def test_a19_event_that_always_fails_is_dead_and_its_neighbours_pass(
    client: httpx.Client,
) -> None:
    EventType.objects.create(name="Poison", profile_paths=["no object"])
    post(client, [event_document("a"), event_document("p", event_type="Poison")])
    for _ in range(8):
        Event.objects.filter(state="pending").update(due_at=now())
        engine.process_batch(limit=10)
        engine.process_batch(limit=1, retried=True)
    assert dict(Event.objects.values_list("event_id", "state")) == {"a": "ignored", "p": "dead"}


def test_a20_dead_letter_replayed_twice_at_once_mails_once() -> None:
    campaign = CampaignFactory()
    event = EventFactory(state="dead", attempts=5)

    def replay(_: int) -> int:
        try:
            return replay_dead([event.pk])
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(replay, range(8))) == 1
    engine.process_batch(limit=10)
    drain(Stream(campaign.stream).value, budget=5)
    replay_dead([event.pk])
    engine.process_batch(limit=10)
    assert (Message.objects.count(), SandboxMail.objects.count()) == (1, 1)

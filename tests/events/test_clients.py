"""The client libraries other people's services already have, unmodified, over real HTTP.

They lose nothing and send nothing twice, also when the network or the server fails them.
"""

import gzip
import json
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import requests
from cloudevents.core.bindings import http as bindings
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1 import conversion
from cloudevents.v1.http import CloudEvent as OldCloudEvent
from rudderstack.analytics import request as rudder_request
from rudderstack.analytics.client import Client as RudderClient
from segment.analytics import request as segment_request
from segment.analytics.client import Client as SegmentClient

from events.models import Event, Rejection
from tests.events.serving import CUT, LOST, Fault, Gateway, gateway, serving
from tests.factories import make_api_key

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("clients")]

LIBRARIES = [SegmentClient, RudderClient]


@pytest.fixture(scope="module")
def server(django_db_setup: None) -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def front(server: str) -> Iterator[Gateway]:
    with gateway(server) as found:
        yield found
    for session in (segment_request._session, rudder_request._session):
        session.close()


@pytest.fixture
def token(db: None) -> str:
    return make_api_key(source="shop", rate_limit=0)[1]


class Library:
    """A library pointed at us, as its documentation says, and what it reports as lost."""

    def __init__(self, kind: Any, host: str, key: str, **options: Any) -> None:
        self.lost: list[Any] = []
        self.client = kind(
            key,
            host=host,
            on_error=lambda error, items: self.lost.append((error, items)),
            **{"upload_interval": 0.1, "max_retries": 4, **options},
        )

    def __enter__(self) -> Any:
        return self.client

    def __exit__(self, *_error: object) -> None:
        self.client.shutdown()


def stored() -> Counter[str]:
    return Counter(Event.objects.values_list("event_id", flat=True))


@pytest.mark.parametrize("kind", LIBRARIES)
@pytest.mark.parametrize("path", ["/segment", "/segment/"])
@pytest.mark.parametrize("is_packed", [False, True])
def test_library_delivers_every_call_once(
    front: Gateway, token: str, kind: Any, path: str, is_packed: bool
) -> None:
    ids = [f"m-{n}" for n in range(60)]
    library = Library(kind, front.url + path, token, upload_size=25, gzip=is_packed)
    with library as client:
        for message_id in ids:
            client.track("u-1", "Order Completed", {"total": 1}, message_id=message_id)
    assert library.lost == []
    assert stored() == Counter(ids)
    assert front.seen == front.passed < len(ids) / 10
    assert not Rejection.objects.exists()


@pytest.mark.parametrize("kind", LIBRARIES)
def test_library_delivers_every_kind_of_call(front: Gateway, token: str, kind: Any) -> None:
    when = datetime(2026, 9, 22, 4, 9, 24, 454_000, tzinfo=timezone(timedelta(hours=2)))
    library = Library(kind, f"{front.url}/segment", token)
    with library as client:
        client.identify(
            "u-1",
            {"email": "ada@example.com", "name": "Ada"},
            message_id="identify",
            timestamp=when,
        )
        client.track(17, "Seen", None, anonymous_id="a-1", message_id="track", timestamp=when)
        client.page("u-1", "Docs", "Pricing", {"url": "/"}, message_id="page")
        client.screen("u-1", None, "Home", message_id="screen")
        client.group("u-1", "g-1", {"name": "Initech"}, message_id="group")
        client.alias("a-1", "u-1", message_id="alias")
    assert library.lost == []
    events = {event.event_id: event for event in Event.objects.all()}
    assert {key: (event.type, event.user_id) for key, event in events.items()} == {
        "identify": ("identify", "u-1"),
        "track": ("Seen", "17"),
        "page": ("page", "u-1"),
        "screen": ("screen", "u-1"),
        "group": ("group", "u-1"),
        "alias": ("alias", "u-1"),
    }
    assert events["identify"].payload == {"email": "ada@example.com", "name": "Ada"}
    assert events["page"].payload == {"category": "Docs", "page_name": "Pricing", "url": "/"}
    assert events["group"].payload == {"groupId": "g-1", "traits": {"name": "Initech"}}
    assert events["alias"].payload == {"previousId": "a-1"}
    assert events["track"].metadata["anonymousId"] == "a-1"
    assert events["track"].metadata["context"]["library"]["name"] == "analytics-python"
    assert events["track"].stated_at == when
    assert abs(events["track"].occurred_at - when) < timedelta(minutes=1)


@pytest.mark.parametrize("kind", LIBRARIES)
def test_library_without_a_thread_of_its_own_delivers_too(
    front: Gateway, token: str, kind: Any
) -> None:
    client = kind(token, host=f"{front.url}/segment", sync_mode=True)
    client.track("u-1", "Seen", message_id="m-1")
    assert stored() == Counter(["m-1"])


@pytest.mark.parametrize("kind", LIBRARIES)
def test_message_that_is_sent_twice_on_purpose_is_stored_once(
    front: Gateway, token: str, kind: Any
) -> None:
    library = Library(kind, f"{front.url}/segment", token)
    with library as client:
        for total in (1, 1, 2):
            client.track("u-1", "Seen", {"total": total}, message_id="m-1")
    assert library.lost == []
    assert stored() == Counter(["m-1"])


@pytest.mark.parametrize("kind", LIBRARIES)
@pytest.mark.parametrize(
    "faults",
    [[503], [(503, "1")], [(429, "1")], [LOST], [CUT], [LOST, 500]],
    ids=["503", "503 and a time", "429 and a time", "answer lost", "cut off", "lost, then 500"],
)
def test_library_that_was_failed_tries_again_and_nothing_is_stored_twice(
    front: Gateway, token: str, kind: Any, faults: list[Fault]
) -> None:
    front.faults.extend(faults)
    ids = [f"m-{n}" for n in range(10)]
    library = Library(kind, f"{front.url}/segment", token, upload_interval=0.3)
    with library as client:
        for message_id in ids:
            client.track("u-1", "Seen", message_id=message_id)
    assert library.lost == []
    assert stored() == Counter(ids)
    assert front.seen > len(faults)


@pytest.mark.parametrize("kind", LIBRARIES)
def test_library_with_a_wrong_key_is_told_once(front: Gateway, token: str, kind: Any) -> None:
    library = Library(kind, f"{front.url}/segment", "wrong")
    with library as client:
        client.track("u-1", "Seen", message_id="m-1")
    ((error, items),) = library.lost
    assert (error.status, error.code, [item["messageId"] for item in items]) == (
        401,
        "not_authenticated",
        ["m-1"],
    )
    assert front.seen == 1


@pytest.mark.parametrize("kind", LIBRARIES)
def test_call_that_cannot_be_taken_is_kept_and_neither_lost_nor_sent_again(
    front: Gateway, token: str, kind: Any
) -> None:
    library = Library(kind, f"{front.url}/segment", token)
    with library as client:
        client.track("u-1", "Seen", message_id="before")
        client.track("u-1", "", {"total": 1}, message_id="nameless")
        client.track("u-1", "Seen", message_id="after")
    assert library.lost == []
    assert stored() == Counter(["before", "after"])
    kept = Rejection.objects.get()
    assert (kept.event_id, kept.times, kept.body["payload"]) == ("nameless", 1, {"total": 1})


def test_largest_batch_segments_library_makes_is_taken(front: Gateway, token: str) -> None:
    library = Library(SegmentClient, f"{front.url}/segment", token, upload_interval=60.0)
    with library as client:
        # The library closes a batch once it has 475,000 bytes: the largest one has almost that
        # many and then another call of almost 32 KB.
        for number, size in enumerate([32_400] * 14 + [15_000, 32_400]):
            client.track("u-1", "Seen", {"text": "x" * size}, message_id=f"m-{number}")
    assert library.lost == []
    assert front.passed == 1
    assert len(stored()) == 16


def test_batch_of_rudderstacks_library_is_taken_beyond_segments_size(
    front: Gateway, token: str
) -> None:
    library = Library(RudderClient, f"{front.url}/segment", token, upload_interval=1.0)
    with library as client:
        for number in range(20):
            client.track("u-1", "Seen", {"text": "x" * 32_000}, message_id=f"m-{number}")
    assert library.lost == []
    assert Event.objects.count() == 20


# --- CloudEvents ---------------------------------------------------------------------------


def cloud_event(data: Any, **attributes: Any) -> CloudEvent:
    return CloudEvent(
        attributes={
            "id": "1",
            "source": "/orders",
            "type": "com.example.ordered",
            "specversion": "1.0",
            "time": datetime(2026, 9, 22, 4, 9, 24, tzinfo=UTC),
            **attributes,
        },
        data=data,
    )


def deliver(url: str, token: str, headers: Any, body: Any) -> requests.Response:
    return requests.post(
        f"{url}/cloudevents",
        headers={**headers, "Authorization": f"Bearer {token}"},
        data=body,
        timeout=30,
    )


@pytest.mark.parametrize("mode", [bindings.to_structured_event, bindings.to_binary_event])
@pytest.mark.parametrize(
    ("data", "attributes", "payload"),
    [
        ({"total": 12.5, "name": "Zoë 😀"}, {}, {"total": 12.5, "name": "Zoë 😀"}),
        (b'{"total": 12.5}', {}, {"total": 12.5}),
        ({"total": 1}, {"datacontenttype": "application/json"}, {"total": 1}),
        ({"total": 1}, {"datacontenttype": "application/vnd.shop+json; v=1"}, {"total": 1}),
        (None, {}, {}),
    ],
)
def test_event_of_the_official_sdk_is_stored_once(
    server: str, token: str, mode: Any, data: Any, attributes: dict[str, Any], payload: Any
) -> None:
    message = mode(
        cloud_event(data, subject='Zoë "Z" 100%', traceparent="00-0af7-b7ad-01", **attributes)
    )
    answers = [deliver(server, token, message.headers, message.body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    event = Event.objects.get()
    assert (event.source, event.event_id, event.type) == (
        "shop//orders",
        "1",
        "com.example.ordered",
    )
    assert (event.user_id, event.payload) == ('Zoë "Z" 100%', payload)
    assert event.occurred_at == datetime(2026, 9, 22, 4, 9, 24, tzinfo=UTC)
    assert event.metadata["traceparent"] == "00-0af7-b7ad-01"


def test_event_of_the_official_sdk_is_the_same_in_both_modes(server: str, token: str) -> None:
    event = cloud_event({"total": 1}, subject="u-1")
    for mode in (bindings.to_structured_event, bindings.to_binary_event):
        message = mode(event)
        assert deliver(server, token, message.headers, message.body).status_code == 202
    assert Event.objects.count() == 1


@pytest.mark.parametrize("mode", [conversion.to_structured, conversion.to_binary])
@pytest.mark.parametrize("data", [{"total": 1}, None])
def test_event_of_the_sdks_first_version_is_stored(
    server: str, token: str, mode: Any, data: Any
) -> None:
    attributes = {"id": "1", "source": "/orders", "type": "ordered", "subject": "u-1"}
    headers, body = mode(OldCloudEvent(attributes, data))
    assert deliver(server, token, headers, body).status_code == 202
    event = Event.objects.get()
    assert (event.user_id, event.payload) == ("u-1", data or {})


def test_batch_of_the_sdks_events_is_stored_packed_or_not(server: str, token: str) -> None:
    events = [bindings.to_structured_event(cloud_event({"n": n}, id=str(n))) for n in range(50)]
    batch = json.dumps([json.loads(message.body) for message in events]).encode()
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    first = deliver(server, token, headers, batch)
    again = deliver(server, token, {**headers, "Content-Encoding": "gzip"}, gzip.compress(batch))
    assert [answer.status_code for answer in (first, again)] == [202, 202]
    assert {result["status"] for result in first.json()["results"]} == {"accepted"}
    assert {result["status"] for result in again.json()["results"]} == {"duplicate"}
    assert Event.objects.count() == 50


def test_delivery_whose_answer_was_lost_is_accepted_again(front: Gateway, token: str) -> None:
    front.faults.append(LOST)
    message = bindings.to_binary_event(cloud_event({"total": 1}, id=str(uuid.uuid4())))
    with pytest.raises(requests.ConnectionError):
        deliver(front.url, token, message.headers, message.body)
    assert deliver(front.url, token, message.headers, message.body).status_code == 202
    assert Event.objects.count() == 1


def test_handshake_is_answered_by_the_server_itself(server: str) -> None:
    headers = {"WebHook-Request-Origin": "emitter.example.com"}
    answer = requests.options(f"{server}/cloudevents", headers=headers, timeout=30)
    assert answer.status_code == 200
    assert answer.headers["WebHook-Allowed-Origin"] == "emitter.example.com"

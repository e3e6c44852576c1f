"""What becomes of a batch of messages, whichever broker they came from."""

import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from contacts.models import Contact
from emailauto.config import Residency
from events.consumers.broker import Delivery
from events.consuming import Taken, take
from events.models import Event, EventType, Rejection
from tests.factories import ContactFactory, event_document

pytestmark = pytest.mark.django_db


def delivery(document: Any, partition: int = 0) -> Delivery:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Delivery(body, {"emailauto-topic": "t"}, object(), partition)


def taken(*documents: Any) -> Taken:
    return take([delivery(document) for document in documents], source="api")


def headers(result: Taken) -> list[tuple[str | None, ...]]:
    """Code, event id and path of the first problem of each letter."""
    return [
        (
            letter.headers["emailauto-code"],
            letter.headers.get("emailauto-event-id"),
            json.loads(letter.headers["emailauto-problems"])[0]["path"],
        )
        for letter in result.letters
    ]


@pytest.fixture
def restricted(settings: Any) -> None:
    compliance = msgspec.structs.replace(
        settings.EMAILAUTO.compliance, residency=Residency(regions=["eu-*"])
    )
    settings.EMAILAUTO = msgspec.structs.replace(settings.EMAILAUTO, compliance=compliance)


def test_events_are_stored_and_counted_by_partition() -> None:
    result = take(
        [delivery(event_document("e1"), 0), delivery(event_document("e2"), 3)], source="shop"
    )
    assert (result.recorded, result.letters) == (Counter({0: 1, 3: 1}), [])
    assert set(Event.objects.values_list("source", "event_id")) == {("shop", "e1"), ("shop", "e2")}


def test_event_again_is_neither_counted_nor_a_letter() -> None:
    document = event_document("e1")
    taken(document)
    result = taken(document, document)
    assert (result.recorded, result.letters) == (Counter(), [])
    assert Event.objects.count() == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b'{"event_id": "\\u0000"}', "NUL"),
        (b"[" * 100_000, "nested too deeply"),
        (b'"' + b"x" * 5 * 1024 * 1024 + b'"', "larger than"),
    ],
)
def test_undecodable_message_becomes_a_letter_as_it_was(body: bytes, message: str) -> None:
    good = event_document("e1")
    result = taken(body, good)
    (letter,) = result.letters
    assert letter.body == body
    assert letter.headers["emailauto-code"] == "invalid"
    assert message in letter.headers["emailauto-problems"]
    assert letter.headers["emailauto-topic"] == "t"
    assert "emailauto-event-id" not in letter.headers
    assert Event.objects.get().event_id == "e1"


def test_letter_says_what_is_wrong_and_never_the_value() -> None:
    EventType.objects.create(
        name="Order",
        schema={"type": "object", "properties": {"total": {"type": "number"}}},
    )
    first = event_document("known")
    taken(first)
    secret = "secret@example.com"
    result = taken(
        {**event_document("shape"), "timestamp": secret},
        event_document("schema", event_type="Order", payload={"total": secret}),
        {**first, "payload": {"email": secret}},
    )
    assert headers(result) == [
        ("invalid", "shape", "timestamp"),
        ("schema", "schema", "/total"),
        ("conflict", "known", "event_id"),
    ]
    assert all(secret not in " ".join(letter.headers.values()) for letter in result.letters)
    assert all(secret.encode() in letter.body for letter in result.letters)
    assert Event.objects.get().payload == first["payload"]


def test_header_takes_no_control_character_and_has_an_end() -> None:
    result = taken({"event_id": "a\n\x1b" + "x" * 500, **dict.fromkeys(map(str, range(500)))})
    (letter,) = result.letters
    assert letter.headers["emailauto-event-id"].startswith("a\N{REPLACEMENT CHARACTER}")
    assert all(text.isprintable() for text in letter.headers.values())
    assert sum(map(len, letter.headers.values())) < 4_000


@pytest.mark.usefixtures("restricted")
def test_letter_of_another_region_has_no_body_and_no_more_than_id_and_reason() -> None:
    document = event_document("e1", metadata={"region": "us-east-1"})
    (letter,) = taken(document).letters
    assert letter.body == b""
    assert {name: letter.headers[name] for name in letter.headers if name != "emailauto-at"} == {
        "emailauto-code": "residency",
        "emailauto-problems": json.dumps(
            [{"path": "metadata.region", "message": "events of this region may not be held here"}],
            separators=(",", ":"),
        ),
        "emailauto-event-id": "e1",
        "emailauto-source": "api",
        "emailauto-topic": "t",
    }
    assert Rejection.objects.get().body is None


@pytest.mark.usefixtures("restricted")
def test_letter_for_another_reason_leaves_out_a_body_that_may_not_be_held() -> None:
    person: Contact = ContactFactory(region="us-west-2")
    EventType.objects.create(name="Order", schema={"type": "object", "required": ["total"]})
    elsewhere, here = {"region": "us-east-1"}, {"region": "eu-west-1"}
    result = taken(
        {**event_document("foreign", metadata=elsewhere), "timestamp": "x"},
        {**event_document("person", metadata=here, user_id=person.user_id), "timestamp": "x"},
        event_document("schema", event_type="Order", metadata=here, user_id=person.user_id),
        {**event_document("ours", metadata=here), "timestamp": "x"},
        {**event_document("odd"), "metadata": "us-east-1", "timestamp": "x"},
    )
    bodies = {letter.headers["emailauto-event-id"]: bool(letter.body) for letter in result.letters}
    assert bodies == {
        "foreign": False,
        "person": False,
        "schema": False,
        "ours": True,
        "odd": True,
    }
    assert not Event.objects.exists()


@pytest.fixture
def _poison(transactional_db: None) -> Iterator[None]:
    """A value that PostgreSQL itself refuses."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events_event ADD CONSTRAINT poison CHECK (user_id <> 'poison')")
    yield
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events_event DROP CONSTRAINT poison")


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_poison")
def test_message_that_postgresql_refuses_becomes_a_letter_and_its_neighbours_are_stored() -> None:
    result = taken(
        event_document("e1"), event_document("bad", user_id="poison"), event_document("e2")
    )
    assert headers(result) == [("invalid", "bad", "")]
    assert "SQLSTATE 23514" in result.letters[0].headers["emailauto-problems"]
    assert set(Event.objects.values_list("event_id", flat=True)) == {"e1", "e2"}
    assert result.recorded == Counter({0: 2})


def test_refused_event_is_kept_for_replay_in_the_admin() -> None:
    EventType.objects.create(name="Order", schema={"type": "object", "required": ["total"]})
    document = event_document("e1", event_type="Order")
    taken(document)
    rejection = Rejection.objects.get()
    assert (rejection.event_id, rejection.code) == ("e1", "schema")
    assert rejection.body["payload"] == document["payload"]


def test_number_of_queries_is_the_same_for_1_and_50_messages() -> None:
    for event_id in ("new-type", "known-type"):
        taken(event_document(event_id))
    counts = []
    for size in (1, 50):
        with CaptureQueriesContext(connection) as queries:
            taken(*(event_document(f"{size}-{n}") for n in range(size)))
        counts.append(len(queries))
    assert counts[0] == counts[1]


# --- the command


@pytest.fixture
def _own_signals() -> Iterator[None]:
    """The command listens to signals that are pytest's."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_own_signals")
@pytest.mark.parametrize(
    ("broker", "name"), [("kafka", "KAFKA_BOOTSTRAP_SERVERS"), ("rabbitmq", "RABBITMQ_URL")]
)
def test_command_says_which_setting_is_missing(broker: str, name: str, settings: Any) -> None:
    setattr(settings, name, "")
    with pytest.raises(CommandError, match=f"Set {name}"):
        call_command("consume", broker)


@pytest.mark.parametrize(("broker", "library"), [("kafka", "confluent_kafka"), ("sqs", "boto3")])
def test_command_says_what_to_install(
    broker: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, f"events.consumers.{broker}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(CommandError, match=f"{library} is not installed: pip install -r req"):
        call_command("consume", broker)


@pytest.mark.parametrize("source", ["", "a/b", "x" * 61])
def test_command_takes_no_source_that_no_api_key_could_have(source: str) -> None:
    with pytest.raises(CommandError, match="--source"):
        call_command("consume", "kafka", f"--source={source}")

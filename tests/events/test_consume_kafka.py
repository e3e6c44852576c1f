"""`manage.py consume kafka` against librdkafka's mock cluster."""

import json
import os
import random
import sys
import time
import types
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

import msgspec
import pytest
from confluent_kafka import Message
from django.db import connection
from django.db.models import Sum

from emailauto.config import Residency
from events.models import Consumer, Event
from tests.events.brokers import (
    DLQ,
    KAFKA_OPTIONS,
    QUEUE,
    ConsumerProcess,
    Kafka,
    consume_until,
    eventually,
    insertions_held_up,
    proxy,
)
from tests.factories import event_document

SOAK = os.environ.get("EMAILAUTO_SOAK") == "1"

# Word for word from the article, imports included; it leaves out `import uuid`.
ARTICLE = """
# Python Example: Event Emission
import json
import time
from kafka import KafkaProducer

producer = KafkaProducer(
    bootstrap_servers=['kafka-broker:9092'],
    value_serializer=lambda v: json.dumps(v).encode('utf-8')
)

def emit_marketing_event(event_type: str, user_id: str, payload: dict):
    event = {
        "event_id": str(uuid.uuid4()),
        "event_type": event_type,
        "user_id": user_id,
        "timestamp": int(time.time() * 1000),
        "payload": payload,
        "metadata": {"source": "checkout-service", "region": "us-east-1"}
    }
    # Idempotency key should be handled at the consumer level or via Kafka keying
    producer.send('marketing.events', value=event)
"""

Start = Callable[..., ConsumerProcess]


@pytest.fixture
def kafka(settings: Any) -> Iterator[Kafka]:
    cluster = Kafka()
    settings.KAFKA_BOOTSTRAP_SERVERS = cluster.servers
    settings.KAFKA_OPTIONS = KAFKA_OPTIONS
    yield cluster
    cluster.close()


@pytest.fixture
def start(kafka: Kafka, tmp_path: Path) -> Iterator[Start]:
    """Starts a consumer as a process; none outlives the test."""
    started: list[ConsumerProcess] = []

    def start(*, port: int = 0, **options: Any) -> ConsumerProcess:
        log = tmp_path / f"consumer-{len(started)}.log"
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.servers,
            "KAFKA_OPTIONS": json.dumps({**KAFKA_OPTIONS, **options}),
        }
        started.append(ConsumerProcess(log, "kafka", port=port, **environment))
        return started[-1]

    yield start
    for each in started:
        each.kill()


def bodies(count: int, prefix: str = "e") -> list[bytes]:
    return [json.dumps(event_document(f"{prefix}{n}")).encode() for n in range(count)]


def headers_of(letter: Message) -> dict[str, str]:
    return {name: text.decode() for name, text in letter.headers()}


def stored() -> int:
    return Event.objects.count()


@pytest.mark.django_db
def test_snippet_of_the_article_works_as_it_is(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client cannot bootstrap against the mock cluster: a stand-in of its name hands the
    very bytes of its serializer to librdkafka."""

    class KafkaProducer:
        def __init__(self, *, bootstrap_servers: list[str], value_serializer: Any) -> None:
            self._serialize = value_serializer

        def send(self, topic: str, value: Any) -> None:
            kafka.send(self._serialize(value), topic=topic)

    stand_in = types.ModuleType("kafka")
    stand_in.KafkaProducer = KafkaProducer
    monkeypatch.setitem(sys.modules, "kafka", stand_in)
    namespace: dict[str, Any] = {"uuid": uuid}
    exec(ARTICLE, namespace)
    payload = {"email": "ada@example.com", "total": 59.9, "name": "Zoë"}
    namespace["emit_marketing_event"]("OrderCompleted", "u-17", payload)
    consume_until("kafka", lambda: kafka.committed() == 1)
    event = Event.objects.get()
    assert (event.source, event.type, event.user_id) == ("api", "OrderCompleted", "u-17")
    assert event.payload == payload
    assert event.metadata == {"source": "checkout-service", "region": "us-east-1"}
    assert uuid.UUID(event.event_id).version == 4
    assert kafka.committed() == 1


@pytest.mark.django_db
def test_refused_messages_go_to_the_dead_letter_topic_and_are_done_with(
    kafka: Kafka, settings: Any
) -> None:
    compliance = msgspec.structs.replace(
        settings.EMAILAUTO.compliance, residency=Residency(regions=["eu-*"])
    )
    settings.EMAILAUTO = msgspec.structs.replace(settings.EMAILAUTO, compliance=compliance)
    foreign = event_document("foreign", metadata={"region": "us-east-1"})
    kafka.send(b"{", b"", *bodies(3), json.dumps(foreign).encode(), key=b"u-1")
    consume_until("kafka", lambda: kafka.committed() == 6)
    assert (stored(), kafka.end(DLQ)) == (3, 3)
    letters = {
        (headers := headers_of(letter))["emailauto-offset"]: (
            headers["emailauto-code"],
            headers.get("emailauto-event-id"),
            letter.value(),
            letter.key(),
        )
        for letter in kafka.messages(DLQ)
    }
    # One key, so one partition: the offsets are those in which they were sent.
    assert letters == {
        "0": ("invalid", None, b"{", b"u-1"),
        "1": ("invalid", None, b"", None),
        "5": ("residency", "foreign", b"", None),
    }
    (partition,) = {headers_of(letter)["emailauto-partition"] for letter in kafka.messages(DLQ)}
    assert {str(message.partition()) for message in kafka.messages(QUEUE)} == {partition}
    assert kafka.committed() == 6


@pytest.mark.django_db
def test_message_too_large_for_the_dead_letter_topic_goes_there_without_its_body(
    kafka: Kafka, settings: Any
) -> None:
    kafka.send(b"x" * 5_000, *bodies(1))
    settings.KAFKA_OPTIONS = {**KAFKA_OPTIONS, "message.max.bytes": 2_000}
    consume_until("kafka", lambda: kafka.committed() == 2)
    assert stored() == 1
    (letter,) = kafka.messages(DLQ)
    assert letter.value() == b""
    assert headers_of(letter)["emailauto-body"] == "left out: too large for this queue"
    assert kafka.committed() == 2


@pytest.mark.django_db
def test_nothing_is_committed_while_the_dead_letter_topic_cannot_be_written(
    kafka: Kafka, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    # A producer of this kind refuses what is outside of a transaction.
    settings.KAFKA_OPTIONS = {**KAFKA_OPTIONS, "transactional.id": "dead letters"}
    kafka.send(b"{", *bodies(2), key=b"all in one partition")
    consume_until("kafka", lambda: "broker away" in caplog.text)
    assert (kafka.committed(), kafka.end(DLQ)) == (0, 0)
    settings.KAFKA_OPTIONS = KAFKA_OPTIONS
    # The events are stored since the first attempt: that they are says nothing about this one,
    # which may get the messages in batches of any size.
    consume_until("kafka", lambda: kafka.committed() == 3)
    assert (kafka.end(DLQ), stored()) == (1, 2)


@pytest.mark.django_db
def test_lag_and_totals_are_written_down(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("events.consuming._REPORT_SECONDS", 0.0)
    kafka.send(*bodies(40), b"{")

    def is_told() -> bool:
        sums = Consumer.objects.aggregate(Sum("recorded"), Sum("dead_lettered"), Sum("lag"))
        return list(sums.values()) == [40, 1, 0]

    consume_until("kafka", is_told)
    assert is_told()
    rows = Consumer.objects.values_list("broker", "queue", "partition").order_by("partition")
    assert list(rows) == [("kafka", QUEUE, partition) for partition in range(4)]


def _until_all_stored(kafka: Kafka, count: int, consumer: ConsumerProcess) -> None:
    is_done = eventually(lambda: stored() == count and kafka.committed() == kafka.end(), 120.0)
    assert is_done, consumer.output
    assert set(Event.objects.values_list("event_id", flat=True)) == {f"e{n}" for n in range(count)}


@pytest.mark.django_db(transaction=True)
def test_consumer_killed_again_and_again_stores_each_event_once(kafka: Kafka, start: Start) -> None:
    count, kills = (20_000, 50) if SOAK else (2_000, 5)
    dice, messages = random.Random(17), bodies(count)
    portion = count // kills
    for number in range(kills):
        fresh = messages[number * portion : (number + 1) * portion]
        # A tenth comes a second time, of these or of those before.
        again = dice.sample(messages[: (number + 1) * portion], portion // 10)
        kafka.send(*dice.sample(fresh + again, len(fresh + again)))
        goal = stored() + dice.randrange(portion)
        consumer = start()
        assert eventually(lambda goal=goal: stored() > goal), consumer.output
        time.sleep(dice.random() * 0.02)
        consumer.kill()
    _until_all_stored(kafka, count, start())
    assert kafka.end(DLQ) == 0


@pytest.mark.django_db(transaction=True)
def test_consumer_takes_over_from_one_that_was_killed(kafka: Kafka, start: Start) -> None:
    messages = bodies(600)
    both = [start(), start()]
    kafka.send(*messages[:200])
    assert eventually(lambda: stored() == 200), both[0].output
    seen = "SELECT count(*) FROM events_consumer"
    with connection.cursor() as cursor:
        assert eventually(lambda: cursor.execute(seen) or cursor.fetchone()[0] == 4)
    kafka.send(*messages[200:400])
    both[0].kill()
    kafka.send(*messages[400:])
    _until_all_stored(kafka, 600, both[1])
    both[1].signal()
    assert both[1].exit_code() == 0


@pytest.mark.django_db(transaction=True)
def test_consumer_that_is_told_to_stop_finishes_its_batch_and_commits_it(
    kafka: Kafka, start: Start
) -> None:
    messages = bodies(500)
    kafka.send(*messages[:10])
    consumer = start()
    assert eventually(lambda: kafka.committed() == 10), consumer.output
    with insertions_held_up() as has_a_batch:
        kafka.send(*messages[10:])
        assert eventually(has_a_batch), consumer.output
        consumer.signal()
    assert consumer.exit_code() == 0
    assert 10 < stored() < 500
    assert kafka.committed() == stored()
    assert Consumer.objects.aggregate(Sum("recorded"))["recorded__sum"] == stored()


@pytest.mark.django_db(transaction=True)
def test_database_that_is_away_is_waited_for_without_leaving_the_group(
    kafka: Kafka, start: Start
) -> None:
    with proxy(int(connection.settings_dict["PORT"])) as way:
        consumer = start(port=way.port, **{"max.poll.interval.ms": 10_000})
        kafka.send(*bodies(10))
        assert eventually(lambda: kafka.committed() == 10), consumer.output
        way.cut()
        kafka.send(*bodies(200)[10:])
        # It pauses for 13.5 seconds between these: longer than a member may go without polling.
        assert eventually(lambda: consumer.output.count("events not stored yet") == 6)
        assert (stored(), kafka.committed()) == (10, 10)
        way.mend()
        _until_all_stored(kafka, 200, consumer)
        assert consumer.is_running
        assert "MAXPOLL" not in consumer.output
        assert "@example.com" not in consumer.output


@pytest.mark.django_db(transaction=True)
def test_stop_does_not_wait_for_a_database_that_is_away(kafka: Kafka, start: Start) -> None:
    with proxy(int(connection.settings_dict["PORT"])) as way:
        consumer = start(port=way.port)
        kafka.send(*bodies(1))
        assert eventually(lambda: kafka.committed() == 1), consumer.output
        way.cut()
        kafka.send(*bodies(2)[1:])
        assert eventually(lambda: "events not stored yet" in consumer.output)
        consumer.signal()
        assert consumer.exit_code() == 0
    assert (stored(), kafka.committed()) == (1, 1)


@pytest.mark.django_db(transaction=True)
def test_second_signal_ends_a_consumer_that_hangs(kafka: Kafka, start: Start) -> None:
    with proxy(int(connection.settings_dict["PORT"])) as way:
        consumer = start(port=way.port)
        kafka.send(*bodies(1))
        assert eventually(lambda: kafka.committed() == 1), consumer.output
        way.stall()
        kafka.send(*bodies(2)[1:])
        assert eventually(lambda: way.holds), consumer.output
        consumer.signal()
        time.sleep(1.0)
        assert consumer.is_running
        for _ in range(30):  # two that come before the process gets its turn are one to it
            consumer.signal()
            with suppress(TimeoutExpired):
                assert consumer.exit_code(2.0) == -15
                break
        assert not consumer.is_running, consumer.output
    assert (stored(), kafka.committed()) == (1, 1)

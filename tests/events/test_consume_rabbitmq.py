"""`manage.py consume rabbitmq` against a RabbitMQ server of the tests' own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from amqp import Message
from kombu import Connection

from events.models import Consumer, Event
from tests.events.brokers import (
    DLQ,
    QUEUE,
    ConsumerProcess,
    consume_until,
    eventually,
    has_rabbitmq,
    insertions_held_up,
    proxy,
    rabbitmq,
)
from tests.factories import event_document

pytestmark = [
    pytest.mark.skipif(not has_rabbitmq, reason="rabbitmq-server is not installed"),
    # One server for the whole module.
    pytest.mark.xdist_group("rabbitmq"),
]


class Rabbit:
    """The server as producers and operators see it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"amqp://guest:guest@127.0.0.1:{port}//"
        self._connection = Connection(self.url)
        self._channel: Any = self._connection.channel()

    def declare(self) -> None:
        for name in (QUEUE, DLQ):
            self._channel.queue_declare(name, durable=True, auto_delete=False)

    def delete(self, *names: str) -> None:
        for name in names:
            self._channel.queue_delete(name)

    def send(self, *bodies: bytes, **properties: Any) -> None:
        for body in bodies:
            message = Message(body, delivery_mode=2, **properties)
            self._channel.basic_publish_confirm(message, routing_key=QUEUE)

    def count(self, name: str = QUEUE) -> int:
        """Messages that nobody has in hand."""
        count: int = self._channel.queue_declare(name, passive=True).message_count
        return count

    def is_left_alone(self) -> bool:
        """Whether nobody consumes any more, and what was in hand is back."""
        return self._channel.queue_declare(QUEUE, passive=True).consumer_count == 0

    def take(self, name: str) -> Any:
        return self._channel.basic_get(name, no_ack=True)

    def close(self) -> None:
        self._connection.release()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as port:
        yield port


@pytest.fixture
def rabbit(server: int, settings: Any) -> Iterator[Rabbit]:
    rabbit = Rabbit(server)
    rabbit.delete(QUEUE, DLQ)
    rabbit.declare()
    settings.RABBITMQ_URL = rabbit.url
    yield rabbit
    rabbit.close()


def bodies(count: int) -> list[bytes]:
    return [json.dumps(event_document(f"e{n}")).encode() for n in range(count)]


def stored() -> int:
    return Event.objects.count()


@pytest.mark.django_db
def test_events_are_stored_and_acknowledged(rabbit: Rabbit) -> None:
    messages = bodies(121)
    rabbit.send(*messages[:120], *messages[:20], messages[120])
    consume_until("rabbitmq", lambda: stored() == 121)
    assert eventually(rabbit.is_left_alone)
    assert (rabbit.count(), rabbit.count(DLQ)) == (0, 0)


@pytest.mark.django_db
def test_queues_are_made_durable_when_there_are_none(rabbit: Rabbit) -> None:
    rabbit.delete(QUEUE, DLQ)
    polls = iter(range(3))
    consume_until("rabbitmq", lambda: next(polls, None) is None)
    assert (rabbit.count(), rabbit.count(DLQ)) == (0, 0)
    rabbit.declare()  # which RabbitMQ refuses when it differs from what is there


@pytest.mark.django_db
def test_refused_messages_go_to_the_dead_letter_queue_as_they_were(rabbit: Rabbit) -> None:
    rabbit.send(b"{", *bodies(3))
    rabbit.send(b"")
    rabbit.send("{ü".encode("latin-1"), content_encoding="utf-8")
    consume_until("rabbitmq", lambda: stored() == 3 and rabbit.count(DLQ) == 3)
    letters = [rabbit.take(DLQ) for _ in range(3)]
    assert [letter.body for letter in letters] == [b"{", "", b"{\xfc"]
    for letter in letters:
        headers = letter.application_headers
        assert headers["emailauto-code"] == "invalid"
        assert "not valid JSON" in headers["emailauto-problems"]
        assert headers["emailauto-queue"] == headers["emailauto-routing-key"] == QUEUE
        assert letter.properties["delivery_mode"] == 2
    assert eventually(rabbit.is_left_alone)
    assert rabbit.count() == 0


@pytest.mark.django_db
def test_nothing_is_acknowledged_while_there_is_no_dead_letter_queue(
    rabbit: Rabbit, caplog: pytest.LogCaptureFixture
) -> None:
    rabbit.send(*bodies(1))
    steps = iter([lambda: rabbit.delete(DLQ), lambda: rabbit.send(b"{")])

    def is_done() -> bool:
        if stored() == 1 and (step := next(steps, None)):
            step()
        return "broker away" in caplog.text

    consume_until("rabbitmq", is_done)
    assert any("NO_ROUTE" in getattr(record, "error", "") for record in caplog.records)
    assert eventually(rabbit.is_left_alone)
    assert rabbit.count() == 1
    rabbit.declare()
    consume_until("rabbitmq", lambda: rabbit.count(DLQ) == 1)
    assert eventually(rabbit.is_left_alone)
    assert rabbit.count() == 0


@pytest.mark.django_db
def test_connection_that_breaks_is_made_again(rabbit: Rabbit, settings: Any) -> None:
    messages = bodies(80)
    rabbit.send(*messages[:40])
    with proxy(rabbit.port) as way:
        settings.RABBITMQ_URL = f"amqp://guest:guest@127.0.0.1:{way.port}//"
        steps = iter([way.cut, lambda: rabbit.send(*messages), way.mend])

        def is_done() -> bool:
            if stored() >= 40 and (step := next(steps, None)):
                step()
            return stored() == 80

        consume_until("rabbitmq", is_done)
    assert stored() == 80
    assert eventually(rabbit.is_left_alone)
    assert (rabbit.count(), rabbit.count(DLQ)) == (0, 0)


@pytest.mark.django_db
def test_lag_and_totals_are_written_down(rabbit: Rabbit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("events.consuming._REPORT_SECONDS", 0.0)
    rabbit.send(*bodies(70), b"{")
    told: list[tuple[int, ...]] = []

    def is_told() -> bool:
        told.extend(Consumer.objects.values_list("lag", "recorded", "dead_lettered"))
        return told[-1:] == [(0, 70, 1)]

    consume_until("rabbitmq", is_told)
    assert told[-1] == (0, 70, 1)
    # Of 71 messages, the first batch of 50 was done while another 21 were on the way.
    assert max(recorded for _, recorded, _ in told[:1]) <= 50
    assert Consumer.objects.get().queue == QUEUE


@pytest.mark.django_db(transaction=True)
def test_consumer_killed_in_the_middle_loses_and_doubles_nothing(
    rabbit: Rabbit, tmp_path: Path
) -> None:
    messages = bodies(1_000)
    for start in (0, 400):
        # Not all at once: the first one could store them before this process gets its turn.
        rabbit.send(*messages[start : start + 400])
        goal = stored() + 200
        with ConsumerProcess(
            tmp_path / "killed.log", "rabbitmq", RABBITMQ_URL=rabbit.url
        ) as consumer:
            assert eventually(lambda goal=goal: stored() >= goal), consumer.output
    rabbit.send(*messages[800:])
    with ConsumerProcess(tmp_path / "last.log", "rabbitmq", RABBITMQ_URL=rabbit.url) as consumer:
        assert eventually(lambda: stored() == 1_000), consumer.output
        consumer.signal()
        assert consumer.exit_code() == 0
    assert eventually(rabbit.is_left_alone)
    assert (rabbit.count(), rabbit.count(DLQ)) == (0, 0)
    assert set(Event.objects.values_list("event_id", flat=True)) == {f"e{n}" for n in range(1_000)}
    assert rabbit.count(DLQ) == 0


@pytest.mark.django_db(transaction=True)
def test_consumer_that_is_told_to_stop_acknowledges_what_it_stored(
    rabbit: Rabbit, tmp_path: Path
) -> None:
    messages = bodies(500)
    rabbit.send(*messages[:10])
    with ConsumerProcess(tmp_path / "stopped.log", "rabbitmq", RABBITMQ_URL=rabbit.url) as consumer:
        assert eventually(lambda: stored() == 10), consumer.output
        with insertions_held_up() as has_a_batch:
            rabbit.send(*messages[10:])
            assert eventually(has_a_batch), consumer.output
            consumer.signal()
        assert consumer.exit_code() == 0
    assert 10 < stored() < 500
    assert eventually(rabbit.is_left_alone)
    assert rabbit.count() == 500 - stored()

"""`manage.py consume sqs` against moto's server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from events.consumers import sqs
from events.consumers.stop import Stop
from events.models import Consumer, Event
from tests.events.brokers import AWS, ConsumerProcess, StopWhen, consume_until, eventually
from tests.events.brokers import sqs as sqs_server
from tests.factories import event_document

pytestmark = pytest.mark.xdist_group("sqs")

QUEUE, DLQ = "marketing-events", "marketing-events-dlq"


class Sqs:
    """The two queues as producers and operators see them."""

    def __init__(self, port: int) -> None:
        self.environment = {**AWS, "AWS_ENDPOINT_URL_SQS": f"http://127.0.0.1:{port}"}
        self.client = boto3.client("sqs")
        self.urls = {
            name: self.client.create_queue(QueueName=name)["QueueUrl"] for name in (QUEUE, DLQ)
        }

    def send(self, *bodies: str) -> None:
        for start in range(0, len(bodies), 10):
            entries = [
                {"Id": str(number), "MessageBody": body}
                for number, body in enumerate(bodies[start : start + 10])
            ]
            self.client.send_message_batch(QueueUrl=self.urls[QUEUE], Entries=entries)

    def left(self, name: str = QUEUE) -> int:
        """Messages that were not deleted, hidden ones included."""
        answer = self.client.get_queue_attributes(QueueUrl=self.urls[name], AttributeNames=["All"])[
            "Attributes"
        ]
        return sum(
            int(answer[f"ApproximateNumberOfMessages{which}"]) for which in ("", "NotVisible")
        )

    def letters(self) -> list[dict[str, Any]]:
        answer = self.client.receive_message(
            QueueUrl=self.urls[DLQ], MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        )
        messages: list[dict[str, Any]] = answer["Messages"]
        return messages

    def close(self) -> None:
        for url in self.urls.values():
            self.client.delete_queue(QueueUrl=url)
        self.client.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with sqs_server(tmp_path_factory.mktemp("sqs")) as port:
        yield port


@pytest.fixture
def queues(server: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sqs]:
    for name, value in {**AWS, "AWS_ENDPOINT_URL_SQS": f"http://127.0.0.1:{server}"}.items():
        monkeypatch.setenv(name, value)
    queues = Sqs(server)
    yield queues
    queues.close()


def bodies(count: int) -> list[str]:
    return [json.dumps(event_document(f"e{n}")) for n in range(count)]


def stored() -> int:
    return Event.objects.count()


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("marketing.events", "marketing-events"),
        ("a.b/c_d-1", "a-b-c_d-1"),
        ("shop.events.fifo", "shop-events.fifo"),
    ],
)
def test_queue_name_is_one_that_sqs_takes(name: str, there: str) -> None:
    assert sqs.queue_name(name) == there


@pytest.mark.django_db
def test_events_are_stored_and_deleted(queues: Sqs) -> None:
    messages = bodies(35)
    queues.send(*messages, *messages[:5])
    consume_until("sqs", lambda: queues.left() == 0)
    assert (stored(), queues.left(), queues.left(DLQ)) == (35, 0, 0)


@pytest.mark.django_db
def test_refused_messages_go_to_the_dead_letter_queue_as_they_were(queues: Sqs) -> None:
    queues.send("{", *bodies(2))
    consume_until("sqs", lambda: queues.left() == 0)
    (letter,) = queues.letters()
    headers = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert (letter["Body"], headers["emailauto-code"]) == ("{", "invalid")
    assert headers["emailauto-queue"] == "marketing.events"
    assert headers["emailauto-message-id"]
    assert len(headers) <= 10  # more, and SQS refuses the message
    assert stored() == 2


@pytest.mark.django_db
def test_message_too_large_for_the_dead_letter_queue_goes_there_without_its_body(
    queues: Sqs,
) -> None:
    queues.client.set_queue_attributes(
        QueueUrl=queues.urls[DLQ], Attributes={"MaximumMessageSize": "1024"}
    )
    queues.send("x" * 5_000)
    consume_until("sqs", lambda: queues.left() == 0)
    (letter,) = queues.letters()
    assert letter["Body"] == "-"
    assert letter["MessageAttributes"]["emailauto-body"]["StringValue"].startswith("left out")


@pytest.mark.django_db
def test_message_that_comes_again_is_stored_once(
    queues: Sqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqs, "VISIBILITY_SECONDS", 0)
    queues.send(*bodies(3))
    rounds = iter(range(3))
    broker = sqs.connect(Stop())
    for _ in rounds:
        assert len(broker.receive()) == 3  # and nobody deletes them
    broker.close()
    monkeypatch.undo()
    for name, value in queues.environment.items():
        monkeypatch.setenv(name, value)
    consume_until("sqs", lambda: queues.left() == 0)
    assert stored() == 3


@pytest.mark.django_db
def test_deleting_goes_on_past_a_message_that_cannot_be_deleted(
    queues: Sqs, caplog: pytest.LogCaptureFixture
) -> None:
    queues.send(*bodies(2))
    broker = sqs.connect(Stop())
    first, second = broker.receive()
    broker.acknowledge([type(first)(first.body, first.origin, "stale"), second])
    broker.close()
    assert queues.left() == 1
    assert "messages not deleted" in caplog.text


def test_messages_that_are_held_stay_hidden(queues: Sqs, monkeypatch: pytest.MonkeyPatch) -> None:
    queues.send(*bodies(1))
    broker = sqs.connect(StopWhen(lambda: False))
    monkeypatch.setattr(sqs, "VISIBILITY_SECONDS", 1)
    deliveries = broker.receive()
    monkeypatch.setattr(sqs, "VISIBILITY_SECONDS", 60)
    broker.hold(deliveries, 1.5)
    answer = queues.client.receive_message(QueueUrl=queues.urls[QUEUE], WaitTimeSeconds=0)
    broker.close()
    assert "Messages" not in answer


@pytest.mark.django_db
def test_lag_and_totals_are_written_down(queues: Sqs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("events.consuming._REPORT_SECONDS", 0.0)
    queues.send(*bodies(25), "{")
    told: list[tuple[Any, ...]] = []

    def is_told() -> bool:
        told.extend(Consumer.objects.values_list("queue", "lag", "recorded", "dead_lettered"))
        return queues.left() == 0

    consume_until("sqs", is_told)
    assert told[0] == ("marketing.events", 16, 10, 0)
    assert told[-1] == ("marketing.events", 0, 25, 1)


@pytest.mark.django_db(transaction=True)
def test_stop_breaks_off_a_long_poll(queues: Sqs, tmp_path: Path) -> None:
    queues.send(*bodies(3))
    with ConsumerProcess(tmp_path / "sqs.log", "sqs", **queues.environment) as consumer:
        assert eventually(lambda: queues.left() == 0), consumer.output
        consumer.signal()
        # A long poll takes twenty seconds.
        assert consumer.exit_code(15.0) == 0
    assert stored() == 3

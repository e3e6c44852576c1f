"""Amazon SQS, or a server that answers like it. Where it is and whose keys to use, boto3 reads from
its own environment variables."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.conf import settings

from events.consumers.broker import BrokerError, Delivery, Letter
from events.consumers.stop import Stop

logger = logging.getLogger(__name__)

_LONG_POLL_SECONDS = 20
_MOST_IN_A_REQUEST = 10
_DELETE_ATTEMPTS = 3
# How long a message stays hidden from others once it is ours. Longer than a batch takes; a
# consumer that dies delays its messages by this much. One that comes back too early is recognised
# by the inbox, but counts towards a redrive policy.
VISIBILITY_SECONDS = 60


def connect(stop: Stop) -> "SqsBroker":
    """See `Connect`."""
    return SqsBroker(stop)


def queue_name(name: str) -> str:
    """The name as SQS takes it: `marketing.events` is `marketing-events` there, as Celery has it.
    The ending of a FIFO queue stays."""
    stem, ending = (name[:-5], ".fifo") if name.endswith(".fifo") else (name, "")
    return re.sub(r"[^A-Za-z0-9_-]", "-", stem) + ending


class SqsBroker:
    """One of any number of consumers of the queue."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._queue = settings.EMAILAUTO.queues.marketing_events
        with _broker_errors():
            self._client = boto3.client(
                "sqs",
                config=Config(
                    connect_timeout=5,
                    read_timeout=_LONG_POLL_SECONDS + 10,
                    retries={"mode": "standard"},
                ),
            )
            self._url = self._url_of(self._queue.name)
            self._dlq_url = self._url_of(self._queue.dlq)

    def receive(self) -> list[Delivery]:
        # Messages in an answer that a stop cuts off come again when their time is over.
        with _broker_errors(), self._stop.breaking():
            answer = self._client.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=min(_MOST_IN_A_REQUEST, self._queue.prefetch),
                WaitTimeSeconds=_LONG_POLL_SECONDS,
                VisibilityTimeout=VISIBILITY_SECONDS,
            )
        return [self._delivery(message) for message in answer.get("Messages", [])]

    def hold(self, deliveries: Sequence[Delivery], seconds: float) -> None:
        entries = [
            {**entry, "VisibilityTimeout": VISIBILITY_SECONDS} for entry in _entries(deliveries)
        ]
        with _broker_errors():
            self._client.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)
        self._stop.sleep(seconds)

    def bury(self, letters: Sequence[Letter]) -> None:
        for letter in letters:
            if not self._publish(letter) and not self._publish(letter.emptied()):
                raise BrokerError(f"{self._queue.dlq}: refuses the message")

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        entries = _entries(deliveries)
        for _ in range(_DELETE_ATTEMPTS):
            with _broker_errors():
                answer = self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)
            failed = {entry["Id"] for entry in answer.get("Failed", [])}
            entries = [entry for entry in entries if entry["Id"] in failed]
            if not entries:
                return
        logger.warning("messages not deleted, they come again", extra={"count": len(entries)})

    def lags(self) -> dict[int, int | None]:
        name = "ApproximateNumberOfMessages"
        try:
            answer = self._client.get_queue_attributes(QueueUrl=self._url, AttributeNames=[name])
        except (BotoCoreError, ClientError):  # it takes a permission of its own
            return {0: None}
        return {0: int(answer["Attributes"][name])}

    def close(self) -> None:
        self._client.close()

    def _url_of(self, name: str) -> str:
        url: str = self._client.get_queue_url(QueueName=queue_name(name))["QueueUrl"]
        return url

    def _publish(self, letter: Letter) -> bool:
        """False when SQS does not take such a message, which for one that it gave us can only be
        its size with our headers."""
        attributes = {
            name: {"DataType": "String", "StringValue": text}
            for name, text in letter.headers.items()
        }
        # SQS takes no empty body.
        body = letter.body.decode() or "-"
        with _broker_errors():
            try:
                self._client.send_message(
                    QueueUrl=self._dlq_url, MessageBody=body, MessageAttributes=attributes
                )
            except ClientError as error:
                if error.response["Error"]["Code"] != "InvalidParameterValue":
                    raise
                return False
        return True

    def _delivery(self, message: dict[str, Any]) -> Delivery:
        origin = {
            "emailauto-queue": self._queue.name,
            "emailauto-message-id": message["MessageId"],
        }
        return Delivery(message["Body"].encode(), origin, message["ReceiptHandle"])


def _entries(deliveries: Sequence[Delivery]) -> list[dict[str, Any]]:
    return [
        {"Id": str(number), "ReceiptHandle": delivery.handle}
        for number, delivery in enumerate(deliveries)
    ]


@contextmanager
def _broker_errors() -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise BrokerError(str(error)) from error

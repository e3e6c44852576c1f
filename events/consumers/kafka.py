"""Kafka, through librdkafka."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from events.consumers.broker import BrokerError, Delivery, Letter
from events.consumers.stop import Stop

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_ANSWER_SECONDS = 10.0

_TRY_LATER = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError._ASSIGNMENT_LOST,
    }
)
"""A commit that came in the middle of a rebalance. What of it is still ours afterwards is committed
then; whoever owns the rest reads on from the last commit, and the inbox recognises what it has."""


def connect(stop: Stop) -> "KafkaBroker":
    """See `Connect`."""
    if not settings.KAFKA_BOOTSTRAP_SERVERS:
        raise ImproperlyConfigured("Set KAFKA_BOOTSTRAP_SERVERS, for example kafka:9092.")
    return KafkaBroker(stop)


class KafkaBroker:
    """One member of the consumer group. Its partitions may change within `receive` and `hold`,
    and at no other time."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._queue = settings.EMAILAUTO.queues.marketing_events
        self._done: dict[int, TopicPartition] = {}
        self._producer: Producer | None = None
        with _broker_errors():
            self._consumer = Consumer(_consumer_options(self._queue.prefetch))
            self._consumer.subscribe(
                [self._queue.name], on_revoke=self._give_up, on_lost=self._forget
            )

    def receive(self) -> list[Delivery]:
        self._commit()
        with _broker_errors():
            first = self._consumer.poll(_POLL_SECONDS)
            if first is None:
                return []
            # What has been fetched already; waiting for a full batch would delay a lone event.
            messages = [first, *self._consumer.consume(self._queue.prefetch - 1, 0)]
        return [_delivery(message) for message in messages if not _is_error(message)]

    def hold(self, deliveries: Sequence[Delivery], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with _broker_errors():
            while time.monotonic() < deadline:
                self._stop.check()
                # A member that does not poll is thrown out of the group. Pausing in each round,
                # because partitions may have come with a rebalance.
                self._consumer.pause(self._consumer.assignment())
                message = self._consumer.poll(0.2)
                if message is not None and not _is_error(message):
                    self._consumer.seek(_place(message))
            self._consumer.resume(self._consumer.assignment())

    def bury(self, letters: Sequence[Letter]) -> None:
        too_large = self._publish(letters)
        if self._publish([letter.emptied() for letter in too_large]):
            raise BrokerError(f"{self._queue.dlq}: takes not even an empty message")

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        owned = {place.partition for place in self._consumer.assignment()}
        for delivery in deliveries:
            # Committing for a partition that has moved on would set its new owner back.
            if delivery.partition in owned:
                self._done[delivery.partition] = _place(delivery.handle, after=1)
        self._commit()

    def lags(self) -> dict[int, int | None]:
        assigned = self._consumer.assignment()
        try:
            places = self._consumer.committed(assigned, timeout=_ANSWER_SECONDS)
        except KafkaException:
            return dict.fromkeys((place.partition for place in assigned), None)
        return {place.partition: self._lag(place) for place in places}

    def close(self) -> None:
        with suppress(KafkaException, RuntimeError):  # the latter when it is closed already
            self._consumer.close()

    def _commit(self) -> None:
        """Commit what is done; what a rebalance prevents stays for the next time."""
        if not self._done:
            return
        try:
            self._consumer.commit(offsets=list(self._done.values()), asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() not in _TRY_LATER:
                raise BrokerError(str(error.args[0])) from error
            logger.info("offsets not committed yet", extra={"error": error.args[0].name()})
        else:
            self._done.clear()

    def _give_up(self, consumer: Consumer, places: Sequence[TopicPartition]) -> None:
        """Called before partitions go to another member."""
        with suppress(BrokerError):
            self._commit()
        self._forget(consumer, places)

    def _forget(self, _consumer: Consumer, places: Sequence[TopicPartition]) -> None:
        for place in places:
            self._done.pop(place.partition, None)

    def _lag(self, committed: TopicPartition) -> int | None:
        low, high = self._consumer.get_watermark_offsets(committed, cached=True)
        if high < 0:  # nothing has been fetched from it yet
            return None
        return max(high - max(committed.offset, low), 0)

    def _publish(self, letters: Sequence[Letter]) -> list[Letter]:
        """Returns those that are too large for the topic."""
        failed: list[tuple[Letter, KafkaError]] = []

        def settle(letter: Letter, error: KafkaError | None, _message: Message | None) -> None:
            if error is not None:
                failed.append((letter, error))

        self._producer = self._producer or Producer(_producer_options())
        for letter in letters:
            try:
                self._producer.produce(
                    self._queue.dlq,
                    letter.body,
                    # A key may be somebody's id; it goes where the body goes.
                    letter.delivery.handle.key() if letter.body else None,
                    headers=[(name, text.encode()) for name, text in letter.headers.items()],
                    on_delivery=partial(settle, letter),
                )
            except KafkaException as error:
                settle(letter, error.args[0], None)
        if self._producer.flush(2 * _ANSWER_SECONDS):
            raise BrokerError(f"{self._queue.dlq}: no answer")
        for _, reason in failed:
            if reason.code() != KafkaError.MSG_SIZE_TOO_LARGE:
                raise BrokerError(f"{self._queue.dlq}: {reason}")
        return [letter for letter, _ in failed]


def _options() -> dict[str, Any]:
    return {
        "bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS,
        "client.id": "emailauto",
        "logger": logger,
    }


def _consumer_options(prefetch: int) -> dict[str, Any]:
    return {
        **_options(),
        "group.id": settings.KAFKA_GROUP_ID,
        "auto.offset.reset": "earliest",
        "partition.assignment.strategy": "cooperative-sticky",
        # As many as a batch wait here, plus one answer of the broker; looked at often, so that
        # so short a queue does not run dry.
        "queued.min.messages": prefetch,
        "fetch.queue.backoff.ms": 20,
        **settings.KAFKA_OPTIONS,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
    }


def _producer_options() -> dict[str, Any]:
    return {
        **_options(),
        "message.timeout.ms": round(_ANSWER_SECONDS * 1000),
        # The topic's own limit is the one that counts, and the broker knows it.
        "message.max.bytes": 100_000_000,
        **settings.KAFKA_OPTIONS,
        "acks": "all",
    }


@contextmanager
def _broker_errors() -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise BrokerError(str(error.args[0])) from error


def _is_error(message: Message) -> bool:
    """Whether it is none, but an error the client tells us of and mends by itself. Raises for one
    that it cannot mend."""
    error = message.error()
    if error is None:
        return False
    if error.fatal():
        raise BrokerError(str(error))
    logger.warning("kafka", extra={"error": str(error)})
    return True


def _place(message: Message, *, after: int = 0) -> TopicPartition:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    return TopicPartition(topic, partition, offset + after)


def _delivery(message: Message) -> Delivery:
    place = _place(message)
    origin = {
        "emailauto-topic": place.topic,
        "emailauto-partition": str(place.partition),
        "emailauto-offset": str(place.offset),
    }
    return Delivery(message.value() or b"", origin, message, place.partition)

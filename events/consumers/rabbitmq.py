"""RabbitMQ, or whatever else speaks AMQP 0-9-1."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from amqp import AMQPError, Message, NotFound
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from kombu import Connection

from events.consumers.broker import BrokerError, Delivery, Letter
from events.consumers.stop import Stop

_WAIT_SECONDS = 1.0
_CONFIRM_SECONDS = 20.0
# Longer than any statement may take: nobody answers heartbeats while PostgreSQL is at work.
_HEARTBEAT_SECONDS = 60
_PERSISTENT = 2


def connect(stop: Stop) -> "RabbitBroker":
    """See `Connect`."""
    if not settings.RABBITMQ_URL:
        raise ImproperlyConfigured("Set RABBITMQ_URL, for example amqp://user:password@host/vhost.")
    return RabbitBroker(stop)


class RabbitBroker:
    """One consumer of the queue. What it has not acknowledged when it goes, RabbitMQ hands to
    another one."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._queue = settings.EMAILAUTO.queues.marketing_events
        self._inbox: deque[Any] = deque()
        self._connection = Connection(
            settings.RABBITMQ_URL, heartbeat=_HEARTBEAT_SECONDS, connect_timeout=5
        )
        try:
            with _broker_errors():
                self._open()
        except BrokerError:
            self.close()
            raise

    def receive(self) -> list[Delivery]:
        self._drain(_WAIT_SECONDS)
        count = min(len(self._inbox), self._queue.prefetch)
        return [self._delivery(self._inbox.popleft()) for _ in range(count)]

    def hold(self, deliveries: Sequence[Delivery], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._stop.check()
            self._wait(0.2)

    def bury(self, letters: Sequence[Letter]) -> None:
        with _broker_errors():
            for letter in letters:
                self._confirming.basic_publish_confirm(
                    Message(
                        letter.body,
                        application_headers=dict(letter.headers),
                        content_type="application/json",
                        delivery_mode=_PERSISTENT,
                    ),
                    routing_key=self._queue.dlq,
                    # Without a queue to put it into, RabbitMQ would confirm and drop it.
                    mandatory=True,
                    confirm_timeout=_CONFIRM_SECONDS,
                )

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        # The tags of a channel count up, and all before these are acknowledged.
        with _broker_errors():
            self._consuming.basic_ack(deliveries[-1].handle, multiple=True)

    def lags(self) -> dict[int, int | None]:
        with _broker_errors():
            return {0: self._consuming.queue_declare(self._queue.name, passive=True).message_count}

    def close(self) -> None:
        with suppress(AMQPError, OSError):
            self._connection.release()

    def _open(self) -> None:
        self._connection.connect()
        for name in (self._queue.name, self._queue.dlq):
            self._declare(name)
        self._confirming = self._channel()
        self._consuming = self._channel()
        # A Content-Encoding is no reason to make a text of the body.
        self._consuming.auto_decode = False
        self._consuming.basic_qos(0, self._queue.prefetch, False)
        self._consuming.basic_consume(self._queue.name, callback=self._inbox.append)

    def _channel(self) -> Any:
        return self._connection.channel()

    def _declare(self, name: str) -> None:
        """Make the queue unless there is one; what kind it is was its maker's choice."""
        try:
            self._channel().queue_declare(name, passive=True)
        except NotFound:
            self._channel().queue_declare(name, durable=True, auto_delete=False)

    def _drain(self, seconds: float) -> None:
        """Wait for a message, then take those that have arrived besides."""
        if not self._inbox:
            self._wait(seconds)
        while len(self._inbox) < self._queue.prefetch and self._wait(0):
            pass

    def _wait(self, seconds: float) -> bool:
        """Whether anything came, be it only a heartbeat."""
        with _broker_errors():
            self._connection.heartbeat_check()
            try:
                self._connection.drain_events(timeout=seconds)
            except TimeoutError:
                return False
        return True

    def _delivery(self, message: Any) -> Delivery:
        origin = {
            "emailauto-queue": self._queue.name,
            "emailauto-exchange": message.delivery_info["exchange"],
            "emailauto-routing-key": message.delivery_info["routing_key"],
        }
        # An empty body comes as an empty text.
        return Delivery(bytes(message.body or b""), origin, message.delivery_tag)


@contextmanager
def _broker_errors() -> Iterator[None]:
    try:
        yield
    except (AMQPError, OSError) as error:
        raise BrokerError(f"{type(error).__name__}: {error}") from error

"""What a broker has to be able to do, whichever it is."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec


class BrokerError(Exception):
    """The broker did not do what it was asked; the message says what. Whatever was not
    acknowledged is delivered again."""


class Delivery(msgspec.Struct, frozen=True):
    """A message, handed to us and not acknowledged yet.

    `origin` names where it lay, as dead-letter headers; `handle` is what its broker knows it by.
    """

    body: bytes
    origin: Mapping[str, str]
    handle: Any
    partition: int = 0


class Letter(msgspec.Struct, frozen=True):
    """A message for the dead-letter queue. An empty body was left out on purpose."""

    delivery: Delivery
    body: bytes
    headers: Mapping[str, str]

    def emptied(self) -> "Letter":
        """The same without its body, for a queue that takes no message of this size."""
        headers = {**self.headers, "emailauto-body": "left out: too large for this queue"}
        return Letter(self.delivery, b"", headers)


class Broker(Protocol):
    """A connection to one queue and its dead-letter queue; every method may raise `BrokerError`."""

    def receive(self) -> Sequence[Delivery]:
        """What there is, at most as many as the queue's `prefetch`; none when nothing came for a
        while. Waits no longer than a stop allows."""
        ...

    def hold(self, deliveries: Sequence[Delivery], seconds: float) -> None:
        """Wait without losing what was received to another consumer; raises `Stopped`."""
        ...

    def bury(self, letters: Sequence[Letter]) -> None:
        """Put them into the dead-letter queue; returns when the broker has confirmed each."""
        ...

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Done with all of them: what `receive` gave last, and nothing less."""
        ...

    def lags(self) -> Mapping[int, int | None]:
        """Messages that wait, per partition that is ours; None when the broker does not say."""
        ...

    def close(self) -> None:
        """Let go of the connection and of what is not acknowledged; never raises."""
        ...

"""The brokers that events are consumed from, one module each."""

from collections.abc import Callable
from importlib import import_module

from events.consumers.broker import Broker
from events.consumers.stop import Stop

BROKERS = ("kafka", "rabbitmq", "sqs")

Connect = Callable[[Stop], Broker]
"""Opens a connection; raises `BrokerError`, and `ImproperlyConfigured` when nobody said where the
broker is."""


def connector(name: str) -> Connect:
    """How to connect to the broker of this name; raises `ModuleNotFoundError` when its client
    library is not installed."""
    connect: Connect = import_module(f"{__name__}.{name}").connect
    return connect

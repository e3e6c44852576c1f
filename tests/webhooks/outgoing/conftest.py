"""Loopback counts as a network of the operator's own, and a receiver listens there."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.webhooks.outgoing.receiver import Receiver, receiving


@pytest.fixture(autouse=True)
def _own_network(settings: Any) -> None:
    settings.OUTGOING_ALLOWED_HOSTS = ["127.0.0.0/8"]
    settings.OUTGOING_PROXY = ""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver

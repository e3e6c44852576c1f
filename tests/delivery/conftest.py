"""What several of these files use."""

from collections.abc import Iterator

import pytest

from tests.delivery.fakeesp import FakeESP, fake_esp


@pytest.fixture
def esp() -> Iterator[FakeESP]:
    with fake_esp() as server:
        yield server

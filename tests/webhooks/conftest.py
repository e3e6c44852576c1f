"""The secrets these tests call webhooks with, and an Amazon to ask."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.webhooks.amazon import Amazon, amazon
from tests.webhooks.signing import settings_for_tests


@pytest.fixture(autouse=True)
def _webhook_secrets(settings: Any) -> None:
    for name, value in settings_for_tests().items():
        setattr(settings, name, value)


@pytest.fixture
def sns_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Amazon]:
    with amazon(monkeypatch, tmp_path) as server:
        yield server

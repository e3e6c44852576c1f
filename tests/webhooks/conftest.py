"""The secret these tests call webhooks with."""

from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _webhook_secret(settings: Any) -> None:
    settings.WEBHOOK_SECRET = ["hook:secret"]

"""The system checks of the webhooks."""

from typing import Any

import pytest

from webhooks.checks import check_webhook_secret


@pytest.mark.parametrize(
    ("secrets", "ids"),
    [
        ([], ["webhooks.W001"]),
        (["user:password"], []),
        (["user:password", "password"], ["webhooks.E001"]),
        ([":password"], ["webhooks.E001"]),
        (["user:"], ["webhooks.E001"]),
    ],
)
def test_secret_is_checked(settings: Any, secrets: list[str], ids: list[str]) -> None:
    settings.WEBHOOK_SECRET = secrets
    assert [message.id for message in check_webhook_secret(None)] == ids

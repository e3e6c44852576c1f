"""Provider rows whose API is a fake on loopback."""

import os
from typing import Any

from delivery.models import Provider
from tests.factories import ProviderFactory, SenderFactory
from tests.webhooks.fakelists import KEY, FakeLists

DOMAIN = "mail.example.com"


def account(server: FakeLists, monkeypatch: Any, **fields: Any) -> Provider:
    """A provider row that reaches the fake with the right key, and a sender of it."""
    name, second = f"KEY_{server.kind.upper()}", "SECOND_KEY"
    monkeypatch.setenv(name, KEY)
    monkeypatch.setenv(second, "secret-of-the-account")
    provider: Provider = ProviderFactory(
        **{
            "key": server.kind,
            "backend": server.kind,
            "api_url": server.url,
            "secret_env": f"{name},{second}" if server.kind == "ses" else name,
            **fields,
        }
    )
    SenderFactory(provider=provider, email=f"shop@{DOMAIN}")
    assert os.environ[name] == KEY
    return provider

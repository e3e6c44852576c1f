"""The URLs that providers are given, as `manage.py webhook_urls` prints them."""

import json
from base64 import b64encode
from io import StringIO
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from tests.webhooks.postmark import payload
from tests.webhooks.signing import BASIC
from webhooks.models import Receipt
from webhooks.providers import ADAPTERS


def printed(*providers: str) -> dict[str, str]:
    out = StringIO()
    call_command("webhook_urls", *providers, stdout=out)
    return dict(line.split(": ", 1) for line in out.getvalue().splitlines())


@pytest.mark.django_db(transaction=True)
def test_url_opens_the_webhooks_of_its_provider(settings: Any) -> None:
    settings.PUBLIC_URL = "https://mail.example.com"
    url = urlsplit(printed("postmark")["postmark"])
    assert (url.scheme, url.hostname) == ("https", "mail.example.com")
    credentials = b64encode(f"{url.username}:{url.password}".encode()).decode()
    response = Client().post(
        url.path,
        data=json.dumps(payload("delivery")),
        content_type="application/json",
        headers={"Authorization": f"Basic {credentials}"},
    )
    assert response.status_code == 200
    assert Receipt.objects.count() == 1


def test_every_provider_has_its_own_and_no_url_tells_the_secret() -> None:
    urls = printed()
    assert set(urls) == set(ADAPTERS)
    for provider, text in urls.items():
        url = urlsplit(text)
        asks = "WEBHOOK_SECRET" in ADAPTERS[provider].settings
        assert (url.username, bool(url.password)) == (provider if asks else None, asks)
        assert not any(secret in text for secret in BASIC)
    secrets = [urlsplit(text).password for text in urls.values()]
    paths = [text.split("/")[-2] for text in urls.values()]
    assert len(set(paths)) == len(paths)
    assert not set(paths) & set(secrets)
    assert len(set(filter(None, secrets))) == 5


def test_without_a_secret_or_a_provider_it_says_what_is_missing(settings: Any) -> None:
    with pytest.raises(CommandError, match="No webhooks of nobody"):
        printed("nobody")
    settings.WEBHOOK_SECRET = []
    with pytest.raises(CommandError, match="WEBHOOK_SECRET"):
        printed()

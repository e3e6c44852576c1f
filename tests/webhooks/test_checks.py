"""The system checks of the webhooks."""

from typing import Any

import pytest
from msgspec.structs import replace

from emailauto.config import Config
from tests.webhooks.signing import TOPIC
from webhooks.checks import (
    check_provider_in_use,
    check_way_out,
    check_webhook_keys,
    check_webhook_secret,
)
from webhooks.providers import ADAPTERS


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


def test_usable_keys_have_nothing_to_say() -> None:
    assert check_webhook_keys(None) == []


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("SES_TOPIC_ARNS", "shop-mail"),
        ("SES_TOPIC_ARNS", TOPIC + "*"),
        ("SES_TOPIC_ARNS", TOPIC.replace(":sns:", ":sqs:")),
        ("SENDGRID_WEBHOOK_PUBLIC_KEY", "SG.not-a-public-key"),
        ("SENDGRID_WEBHOOK_PUBLIC_KEY", "-----BEGIN PUBLIC KEY-----"),
        ("POSTAL_WEBHOOK_KEY", "v=DKIM1; t=s; h=sha256; p="),
        ("RESEND_WEBHOOK_SECRET", "re_123"),
        ("RESEND_WEBHOOK_SECRET", "whsec_ü"),
        ("RESEND_WEBHOOK_SECRET", "whsec_*"),
    ],
)
def test_key_that_cannot_be_one_is_an_error_that_does_not_show_it(
    settings: Any, name: str, entry: str
) -> None:
    setattr(settings, name, [*getattr(settings, name), entry])
    (message,) = check_webhook_keys(None)
    assert message.id == "webhooks.E002"
    assert name in message.msg
    assert entry not in message.msg + str(message.hint)


@pytest.mark.parametrize("provider", sorted(ADAPTERS))
def test_webhooks_of_the_provider_in_use_have_to_be_open(
    settings: Any, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    config = replace(Config().provider, type=provider, api_key_env="TEST_WEBHOOK_CHECKS")
    settings.EMAILAUTO = replace(Config(), provider=config)
    settings.EMAIL_URL = ""
    monkeypatch.setenv("TEST_WEBHOOK_CHECKS", "key")
    assert check_provider_in_use(None) == []
    for name in ADAPTERS[provider].settings:
        setattr(settings, name, [])
    needs = set(ADAPTERS[provider].settings)
    found = check_provider_in_use(None) + check_webhook_secret(None)
    said = {"WEBHOOK_SECRET": "webhooks.W001"}
    assert {message.id for message in found} == {said.get(name, "webhooks.W002") for name in needs}
    monkeypatch.delenv("TEST_WEBHOOK_CHECKS")
    assert check_provider_in_use(None) == []


@pytest.mark.parametrize("entry", ["crm", "crm.internal.", "10.1.2.3", "10.0.0.0/8", "fd00::/8"])
def test_own_hosts_that_can_be_matched_are_fine(entry: str, settings: Any) -> None:
    settings.OUTGOING_ALLOWED_HOSTS = [entry]
    assert check_way_out(None) == []


@pytest.mark.parametrize("entry", ["http://crm", "crm:8080", "10.0.0.0/33", "*.internal", "127.1"])
def test_own_host_that_matches_nothing_is_an_error(entry: str, settings: Any) -> None:
    settings.OUTGOING_ALLOWED_HOSTS = ["crm.internal", entry]
    assert [message.id for message in check_way_out(None)] == ["webhooks.E003"]


@pytest.mark.parametrize(
    ("proxy", "ids"),
    [
        ("", []),
        ("http://user:password@proxy:3128", []),
        ("https://proxy:3128", ["webhooks.E004"]),
        ("proxy:3128", ["webhooks.E004"]),
        ("http://proxy:port", ["webhooks.E004"]),
    ],
)
def test_proxy_that_cannot_be_spoken_to_is_an_error(
    proxy: str, ids: list[str], settings: Any
) -> None:
    settings.OUTGOING_PROXY = proxy
    assert [message.id for message in check_way_out(None)] == ids

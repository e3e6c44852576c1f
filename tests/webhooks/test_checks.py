"""The system checks of the webhooks."""

from typing import Any

import pytest
from django.core.checks import ERROR, WARNING
from django.core.checks.registry import registry
from django.db import connection, transaction
from msgspec.structs import replace

from emailauto.config import Config
from tests.factories import ProviderFactory
from tests.webhooks.signing import TOPIC
from webhooks.checks import (
    check_other_providers,
    check_provider_in_use,
    check_way_out,
    check_webhook_keys,
    check_webhook_secret,
    check_webhooks_before_deployment,
)
from webhooks.providers import ADAPTERS


@pytest.mark.parametrize(
    ("secrets", "ids"),
    [
        ([], []),
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
    assert check_provider_in_use(None) == check_webhooks_before_deployment(None) == []
    names = ADAPTERS[provider].settings
    for name in names:
        setattr(settings, name, [])
    (warning,), (error,) = check_provider_in_use(None), check_webhooks_before_deployment(None)
    assert (warning.id, error.id) == ("webhooks.W002", "webhooks.E009")
    assert (warning.level, error.level) == (WARNING, ERROR)
    for message in (warning, error):
        assert provider in message.msg
        assert all(name in message.msg for name in names)
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


@pytest.mark.django_db
def test_providers_set_up_in_the_admin_have_to_be_open_too(settings: Any) -> None:
    """Whatever the default one is. What needs no WEBHOOK_SECRET is open without."""
    for key, backend, is_active in (
        ("a", "ses", True),
        ("b", "postmark", True),
        ("c", "brevo", False),
        ("d", "smtp", True),
    ):
        ProviderFactory(key=key, backend=backend, is_active=is_active)
    settings.WEBHOOK_SECRET = []
    assert check_other_providers(None) == []  # without a database nothing is asked of it
    (found,) = check_other_providers(None, databases=["default"])
    assert (found.id, found.level) == ("webhooks.W004", WARNING)
    assert "postmark" in found.msg
    (error,) = check_webhooks_before_deployment(None, databases=["default"])
    assert (error.id, "postmark" in error.msg) == ("webhooks.E009", True)
    settings.WEBHOOK_SECRET = ["user:password"]
    assert check_other_providers(None, databases=["default"]) == []
    settings.SES_TOPIC_ARNS = []
    (found,) = check_other_providers(None, databases=["default"])
    assert "SES_TOPIC_ARNS" in found.msg
    assert "WEBHOOK_SECRET" not in found.msg


@pytest.mark.django_db
def test_table_that_is_not_there_yet_is_no_error() -> None:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE delivery_provider RENAME TO elsewhere")
        assert check_other_providers(None, databases=["default"]) == []
        transaction.set_rollback(True)


def test_checks_run_where_they_say() -> None:
    """`migrate` asks the database, `check --deploy` takes closed webhooks for an error."""
    assert check_other_providers in registry.registered_checks
    assert check_webhooks_before_deployment in registry.deployment_checks

"""The system checks, as `manage.py check --deploy` runs them."""

from typing import Any

import pytest
from django.core.checks.registry import registry
from msgspec.structs import replace

from emailauto.config import Config


@pytest.fixture(autouse=True)
def _sound(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment without a fault; each test adds one."""
    settings.PUBLIC_URL = settings.TRACKING_URL = "https://mail.example.com"
    settings.SECRET_KEY, settings.ADDRESS_HASH_KEY = "secret", "address"
    settings.EMAIL_URL = "smtp://127.0.0.1"
    settings.SANDBOX_BY_DEFAULT = False
    settings.LEASE_SECONDS, settings.EMAIL_TIMEOUT = 120, 30
    provider = replace(Config().provider, type="sendgrid", api_key_env="TEST_CHECKS_KEY")
    settings.EMAILAUTO = replace(Config(), provider=provider)
    monkeypatch.delenv("TEST_CHECKS_KEY", raising=False)


def found(*, deploy: bool = True) -> list[str | None]:
    checks = registry.get_checks(include_deployment_checks=deploy)
    mine = [check for check in checks if check.__module__ == "emailauto.checks"]
    return [message.id for check in mine for message in check(app_configs=None)]


def test_sound_deployment_has_nothing_to_say() -> None:
    assert found() == []


@pytest.mark.parametrize("url", ["http://mail.example.com", "mail.example.com", ""])
@pytest.mark.parametrize("name", ["PUBLIC_URL", "TRACKING_URL"])
def test_links_without_https_are_an_error(settings: Any, name: str, url: str) -> None:
    setattr(settings, name, url)
    assert found() == ["emailauto.E001"]


def test_address_key_that_is_the_secret_key_is_an_error(settings: Any) -> None:
    settings.ADDRESS_HASH_KEY = settings.SECRET_KEY
    assert found() == ["emailauto.E002"]


def test_provider_without_a_key_is_an_error(settings: Any) -> None:
    settings.EMAIL_URL = ""
    assert found() == ["emailauto.E003"]


def test_sandbox_by_default_in_a_deployment_is_a_warning(settings: Any) -> None:
    settings.EMAIL_URL, settings.SANDBOX_BY_DEFAULT = "", True
    assert found() == ["emailauto.W003"]


def test_sandbox_asked_for_in_a_deployment_is_a_warning(settings: Any) -> None:
    provider = replace(settings.EMAILAUTO.provider, type="sandbox")
    settings.EMAILAUTO = replace(settings.EMAILAUTO, provider=provider)
    settings.EMAIL_URL = ""
    assert found() == ["emailauto.W003"]


def test_provider_with_a_key_is_silent(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.EMAIL_URL = ""
    monkeypatch.setenv("TEST_CHECKS_KEY", "key")
    assert found() == []


@pytest.mark.parametrize("lease", [29, 30])
def test_lease_no_longer_than_a_hand_over_is_a_warning(settings: Any, lease: int) -> None:
    settings.LEASE_SECONDS = lease
    assert found(deploy=False) == ["emailauto.W004"]


@pytest.mark.parametrize("switched_off", ["gdpr", "consent_check"])
def test_loosened_consent_is_a_warning_on_every_start(settings: Any, switched_off: str) -> None:
    compliance = replace(settings.EMAILAUTO.compliance, **{switched_off: False})
    settings.EMAILAUTO = replace(settings.EMAILAUTO, compliance=compliance)
    assert found(deploy=False) == ["emailauto.W005"]


def test_faults_of_a_deployment_do_not_disturb_development(settings: Any) -> None:
    settings.PUBLIC_URL, settings.EMAIL_URL = "http://127.0.0.1:8000", ""
    settings.ADDRESS_HASH_KEY = settings.SECRET_KEY
    assert found(deploy=False) == []


def test_e24_retries_configured_for_a_library_are_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "9")
    assert found(deploy=False) == ["emailauto.W006"]
    monkeypatch.delenv("AWS_MAX_ATTEMPTS")
    monkeypatch.setattr("requests.adapters.DEFAULT_RETRIES", 3)
    assert found(deploy=False) == ["emailauto.W006"]

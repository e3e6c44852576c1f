"""The configuration file: the article's template as it is, and nothing misspelt."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from emailauto.config import Config, load_config

TEMPLATE = """\
# email-automation-config.yaml
version: "1.0"
provider:
  type: "sendgrid"
  api_key_env: "SENDGRID_API_KEY"
  rate_limit: 100 # requests per second
  retry:
    max_attempts: 3
    backoff_ms: 1000
    
queues:
  marketing_events:
    name: "marketing.events"
    prefetch: 50
    dlq: "marketing.events.dlq"

templates:
  base_dir: "./templates"
  versioning: true
  cache_ttl: 3600

suppression:
  storage: "redis"
  key_prefix: "suppression:"
  sync_interval: 300 # seconds

compliance:
  gdpr: true
  ccpa: true
  consent_check: true
"""  # noqa: W293 - verbatim

VALUES: dict[str, Any] = {
    "version": "1.0",
    "provider": {
        "type": "sendgrid",
        "api_key_env": "SENDGRID_API_KEY",
        "api_url": "",
        "rate_limit": 100,
        "retry": {"max_attempts": 3, "backoff_ms": 1000},
        "mailbox_rates": {},
        "on_unknown": {"transactional": "keep", "marketing": "keep"},
    },
    "queues": {
        "marketing_events": {
            "name": "marketing.events",
            "prefetch": 50,
            "dlq": "marketing.events.dlq",
        }
    },
    "templates": {"base_dir": "./templates", "versioning": True, "cache_ttl": 3600},
    "suppression": {"storage": "redis", "key_prefix": "suppression:", "sync_interval": 300},
    "compliance": {
        "gdpr": True,
        "ccpa": True,
        "consent_check": True,
        "residency": {"regions": [], "unknown": "accept"},
    },
    "events": {
        "late_after_hours": 72,
        "unregistered_types": "accept",
        "max_unregistered_types": 1000,
        "retention_days": 90,
        "about_mail": ("opened", "clicked", "bounced", "complained", "unsubscribed"),
    },
    "pages": {"accent": "", "logo_url": "", "privacy_url": "", "record_ip": False},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def refusal(path: Path) -> str:
    with pytest.raises(ImproperlyConfigured) as caught:
        load_config(path)
    return str(caught.value)


def test_template_of_the_article_loads_verbatim(path: Path) -> None:
    path.write_text(TEMPLATE)
    assert msgspec.to_builtins(load_config(path)) == VALUES


def test_shipped_file_starts_with_the_template_and_means_the_same() -> None:
    shipped = settings.BASE_DIR / "email-automation-config.yaml"
    assert shipped.read_text().startswith(TEMPLATE)
    assert msgspec.to_builtins(load_config(shipped)) == VALUES


def test_values_of_the_file_win_over_defaults(path: Path) -> None:
    path.write_text("provider: {rate_limit: 7, api_url: 'http://127.0.0.1/v3/'}\n")
    config = load_config(path)
    assert (config.provider.rate_limit, config.provider.api_url) == (7, "http://127.0.0.1/v3/")
    assert config.provider.type == "sandbox"


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_empty_file_is_the_defaults(path: Path, text: str) -> None:
    path.write_text(text)
    assert load_config(path) == Config()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "provider: {retry: {max_attemps: 3}}",
            "provider.retry: Object contains unknown field `max_attemps`",
        ),
        ("providers: {}", "Object contains unknown field `providers`"),
        ("provider: {rate_limit: fast}", "provider.rate_limit: Expected `int`, got `str`"),
        ("provider: {rate_limit: true}", "provider.rate_limit: Expected `int`, got `bool`"),
        ("provider: {rate_limit: 1.5}", "provider.rate_limit: Expected `int`, got `float`"),
        ("provider: {rate_limit: 0}", "provider.rate_limit: Expected `int` >= 1"),
        ("provider: {type: ''}", "provider.type: Expected `str` of length >= 1"),
        ("provider:", "provider: Expected `object`, got `null`"),
        (
            "queues: {marketing_events: {prefetch: -1}}",
            "queues.marketing_events.prefetch: Expected `int` >= 1",
        ),
        ("suppression: {storage: mysql}", "suppression.storage: Invalid enum value 'mysql'"),
        ("events: {retention_days: 29}", "events.retention_days: Expected `int` >= 30"),
        (
            "events: {unregistered_types: drop}",
            "events.unregistered_types: Invalid enum value 'drop'",
        ),
        (
            "compliance: {residency: {regions: eu}}",
            "compliance.residency.regions: Expected `array`, got `str`",
        ),
        ("compliance: {gdpr: 'no'}", "compliance.gdpr: Expected `bool`, got `str`"),
        ("version: 1.0", "version: Expected `str`, got `float`"),
        ("version: '2.0'", "version: Invalid enum value '2.0'"),
        ("- provider", "Expected `object`, got `array`"),
        ("provider", "Expected `object`, got `str`"),
    ],
)
def test_unknown_key_or_bad_value_names_file_key_and_reason(
    path: Path, text: str, reason: str
) -> None:
    path.write_text(text)
    assert refusal(path) == f"{path}: {reason}"


@pytest.mark.parametrize(
    "raw",
    [
        b"{provider: [",
        b"a: b: c",
        b"\tversion: x",
        b"\xff\xfe\xff",
        b"? [a]\n: 1",
        b"provider: {type: !!python/object/apply:os.getcwd []}",
    ],
)
def test_file_that_is_not_plain_yaml_is_named(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    assert refusal(path).startswith(f"{path}: cannot be read as YAML: ")


def test_missing_file_is_named_with_the_way_to_set_it(path: Path) -> None:
    text = refusal(path)
    assert text.startswith(f"{path}: no such file.")
    assert "EMAILAUTO_CONFIG" in text


def test_directory_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith(f"{tmp_path}: cannot be read as YAML: ")


def test_configuration_cannot_be_changed_at_run_time() -> None:
    with pytest.raises(AttributeError):
        Config().provider.rate_limit = 1

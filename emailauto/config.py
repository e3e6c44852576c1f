"""`email-automation-config.yaml`: how the engine behaves, as typed, frozen values.

The article's template is accepted verbatim. An unknown key or a bad value stops the start with
the file, the key's path and the reason, because a misspelt `max_attemps` that is silently ignored
is found in production.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import yaml
from django.core.exceptions import ImproperlyConfigured

from delivery.mailboxes import MAILBOX_PROVIDERS

Positive = Annotated[int, msgspec.Meta(ge=1)]
Text = Annotated[str, msgspec.Meta(min_length=1)]
MailNews = Literal["delivered", "opened", "clicked", "bounced", "complained", "unsubscribed"]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mapping of the file; what it does not declare is an error."""


class Retry(Section, frozen=True):
    """How often a hand-over that was provably not accepted is tried again."""

    max_attempts: Positive = 3
    backoff_ms: Positive = 1000


class OnUnknown(Section, frozen=True):
    """What to do with a mail of which nobody knows whether the provider took it, per stream."""

    transactional: Literal["keep", "resend"] = "keep"
    marketing: Literal["keep", "resend"] = "keep"


class ProviderConfig(Section, frozen=True):
    """The default provider: an Anymail backend's name, and the env variable with its key."""

    type: Text = "sandbox"
    api_key_env: str = ""
    api_url: str = ""
    rate_limit: Positive = 100
    """Hand-overs per second, over all workers."""
    mailbox_rates: dict[str, Positive] = {}
    """Hand-overs per second to each mailbox provider, from each sending domain through each
    provider; those that are not named have no limit of their own."""
    retry: Retry = Retry()
    on_unknown: OnUnknown = OnUnknown()
    """`resend`: rather twice than not at all."""


class Queue(Section, frozen=True):
    """One broker queue: its name, how many messages a consumer holds, where bad ones go."""

    name: Text = "marketing.events"
    prefetch: Positive = 50
    dlq: Text = "marketing.events.dlq"


class Queues(Section, frozen=True):
    """The broker queues events are consumed from."""

    marketing_events: Queue = Queue()


class Templates(Section, frozen=True):
    """Template files and their cache."""

    base_dir: Text = "./templates"
    versioning: bool = True
    cache_ttl: Positive = 3600
    """Seconds a parsed template stays in a worker's memory."""


class SuppressionConfig(Section, frozen=True):
    """The mirror of the suppression list for other services; PostgreSQL stays the truth."""

    storage: Literal["redis", "postgres"] = "redis"
    key_prefix: Text = "suppression:"
    sync_interval: Positive = 300
    """Seconds between two full synchronisations of the mirror."""


class Residency(Section, frozen=True):
    """Whose data this deployment may hold. No regions: everybody's."""

    regions: list[Text] = []
    """Patterns, e.g. `eu-*`; compared without regard to case."""
    unknown: Literal["accept", "refuse"] = "accept"
    """What to do with an event that names no region, of a person whose region is unknown."""


class Compliance(Section, frozen=True):
    """What the gate asks of consent, and whose events are kept at all."""

    gdpr: bool = True
    ccpa: bool = True
    consent_check: bool = True
    residency: Residency = Residency()


Colour = Annotated[str, msgspec.Meta(pattern=r"^(#[0-9a-fA-F]{6})?$")]
HttpsUrl = Annotated[str, msgspec.Meta(pattern=r"^(https://[^\s'\";,<>]+)?$")]


class Pages(Section, frozen=True):
    """How the pages a recipient sees look, and what they write down."""

    accent: Colour = ""
    """Of buttons and ticks, e.g. #1f4fd8; the text on it is black or white, whichever is read
    better."""
    logo_url: HttpsUrl = ""
    """Shown instead of the sender's name."""
    privacy_url: HttpsUrl = ""
    record_ip: bool = False
    """Whether the IP address is part of the evidence of a consent."""


class EventsConfig(Section, frozen=True):
    """What the inbox takes in, what may still start something, and how long it is kept."""

    late_after_hours: Positive = 72
    unregistered_types: Literal["accept", "refuse"] = "accept"
    max_unregistered_types: Positive = 1000
    """Names one source may make up."""
    retention_days: Annotated[int, msgspec.Meta(ge=30)] = 90
    """How long an event, and with it the memory of its id, is kept."""
    about_mail: tuple[MailNews, ...] = (
        "opened",
        "clicked",
        "bounced",
        "complained",
        "unsubscribed",
    )
    """What becomes an `email.*` event that campaigns can listen to."""


class Config(Section, frozen=True):
    """The whole file."""

    version: Literal["1.0"] = "1.0"
    provider: ProviderConfig = ProviderConfig()
    queues: Queues = Queues()
    events: EventsConfig = EventsConfig()
    templates: Templates = Templates()
    suppression: SuppressionConfig = SuppressionConfig()
    compliance: Compliance = Compliance()
    pages: Pages = Pages()


def load_config(path: Path) -> Config:
    """Read and validate the file; raise `ImproperlyConfigured` naming file, key path and reason."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ImproperlyConfigured(
            f"{path}: no such file. EMAILAUTO_CONFIG names the configuration; leave it unset "
            "for email-automation-config.yaml in the project's directory."
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ImproperlyConfigured(f"{path}: cannot be read as YAML: {error}") from error
    try:
        config = msgspec.convert({} if document is None else document, Config)
    except msgspec.ValidationError as error:
        raise ImproperlyConfigured(f"{path}: {_with_key_path(str(error))}") from error
    if unknown := sorted(config.provider.mailbox_rates.keys() - set(MAILBOX_PROVIDERS)):
        known = ", ".join(MAILBOX_PROVIDERS)
        raise ImproperlyConfigured(
            f"{path}: provider.mailbox_rates.{unknown[0]}: is none of {known}"
        )
    return config


def _with_key_path(reason: str) -> str:
    """Turn msgspec's "reason - at `$.a.b`" into "a.b: reason"."""
    text, marker, path = reason.partition(" - at `$.")
    return f"{path.rstrip('`')}: {text}" if marker else text

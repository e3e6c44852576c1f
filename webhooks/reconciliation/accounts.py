"""Which providers are asked, as what, and with whose keys: the same that mail leaves through."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from delivery.models import Provider, Sender
from delivery.routes import configured_backend, route_of
from webhooks.reconciliation.asking import Desk
from webhooks.reconciliation.providers import SOURCES
from webhooks.reconciliation.sources import Source


@dataclass(frozen=True, slots=True)
class Account:
    """A provider row that can be asked. `kind` is what it is today: "as configured" is resolved."""

    provider: Provider
    kind: str

    @property
    def source(self) -> Source:
        """Its lists and its log."""
        return SOURCES[self.kind]

    @property
    def backend(self) -> str:
        """As messages note it when they are handed over."""
        return route_of(self.provider).backend


def accounts(*, key: str = "") -> list[Account]:
    """Every provider that has lists, or the one of that key; also those that are switched off:
    mail that left through them yesterday comes back today."""
    providers = Provider.objects.order_by("pk")
    found = [
        Account(provider, kind_of(provider))
        for provider in (providers.filter(key=key) if key else providers)
    ]
    return [account for account in found if account.kind in SOURCES]


def kind_of(provider: Provider) -> str:
    """The kind of provider it is: `sendgrid`, `smtp`, …"""
    configured = provider.backend == Provider.Backend.CONFIGURED
    return configured_backend() if configured else provider.backend


@contextmanager
def desk_of(account: Account) -> Iterator[Desk]:
    """Where the account is asked, until the end of the block; raises `RouteError` when the
    provider cannot be used as it is set up."""
    options = route_of(account.provider).options
    source = account.source
    desk = Desk(
        base=options.get("api_url") or source.base,
        headers=source.headers(options),
        options=options,
        domains=tuple(sorted({sender.domain for sender in Sender.objects.all()})),
    )
    try:
        yield desk
    finally:
        desk.close()

"""Which switches a message meets on its way. Deciding is pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from common.rows import rows_of
from delivery.mailboxes import mailbox_provider
from delivery.models import Message, Sender, Switch
from delivery.quotas import HOUR, Limit

PREFIX = "slow:"

Scope = tuple[str, str]
"""A switch's target and key."""


@dataclass(frozen=True, slots=True)
class Switches:
    """What is switched off or slowed down, as it stood at one moment."""

    stops: Mapping[Scope, Switch]
    brakes: Mapping[Scope, Switch]

    @property
    def stopped_providers(self) -> set[str]:
        """Their keys."""
        return {key for target, key in self.stops if target == Switch.Target.PROVIDER}

    def stopping(
        self, message: Message, sender: Sender | None, providers: Iterable[str], address: str
    ) -> Switch | None:
        """The switch that stops this message to the address on its way through one of these
        providers, or None."""
        if not self.stops:
            return None
        scopes = _scopes(message, sender, providers, address)
        return next((self.stops[scope] for scope in scopes if scope in self.stops), None)

    def limits(self, message: Message, sender: Sender, provider: str, address: str) -> list[Limit]:
        """What the message counts against because it is slowed down."""
        if not self.brakes:
            return []
        scopes = _scopes(message, sender, [provider], address)
        return [
            Limit(f"{PREFIX}{target}:{key}:{HOUR}", HOUR, self.brakes[target, key].per_hour or 0)
            for target, key in scopes
            if (target, key) in self.brakes
        ]


def active_switches() -> Switches:
    """What is switched off or slowed down now. One query."""
    stops: dict[Scope, Switch] = {}
    brakes: dict[Scope, Switch] = {}
    for switch in rows_of(Switch, "SELECT * FROM delivery_switch"):
        (stops if switch.per_hour is None else brakes)[switch.target, switch.key] = switch
    return Switches(stops, brakes)


def _scopes(
    message: Message, sender: Sender | None, providers: Iterable[str], address: str
) -> Iterator[Scope]:
    yield Switch.Target.EVERYTHING, ""
    yield Switch.Target.CAMPAIGN, message.origin_campaign
    for key in providers:
        yield Switch.Target.PROVIDER, key
    if sender is not None:
        way = f"{message.stream}:{sender.domain}"
        yield Switch.Target.DOMAIN, sender.domain
        yield Switch.Target.STREAM, way
        yield Switch.Target.MAILBOXES, f"{way}:{mailbox_provider(address)}"

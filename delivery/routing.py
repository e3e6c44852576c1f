"""Which provider a message leaves through: its sender's, or one of the same pool that stands in
while that one is down. Deciding is pure.

Only mail that provably no provider has is ever routed: what is `unknown` is not claimed.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db.models import F
from django.db.models.functions import Extract, Now

from contacts.services import Recipient
from delivery import warmup
from delivery.models import Message, Provider, Sender
from delivery.quotas import Limit, Usage, limits_of
from delivery.senderpauses import Barred, Key, load_pauses
from delivery.states import Reason
from delivery.switches import PREFIX as SLOW_PREFIX
from delivery.switches import Switches
from delivery.warmup import Warmups, load_warmups
from events.residency import permits

_PROBE_WAIT = 5.0
"""While one message tries whether a provider is back, the others wait this long."""
_LOOK_AGAIN = 300.0
"""What stands until somebody changes something is looked at again."""
_STANDING = (Reason.NO_PROVIDER, Reason.NO_REGION)


@dataclass(frozen=True, slots=True)
class Way:
    """A message's way out. `is_probe`: the first after an outage, alone."""

    provider: Provider
    is_probe: bool = False


@dataclass(frozen=True, slots=True)
class NoWay:
    """Why there is none, and after how many seconds to look again."""

    reason: Reason
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Pause:
    """In seconds: how long a provider's circuit stays open (below zero: it may be tried), and the
    pause it asked for."""

    open_for: float | None = None
    slow_for: float | None = None


class Router:
    """The providers as they stood at one moment: the `pauses` of those that have one, the senders
    they have `barred`, what is switched off or slowed down, and what has been used of the
    limits."""

    def __init__(
        self,
        providers: Mapping[int, Provider],
        pauses: Mapping[int, Pause],
        switches: Switches,
        barred: Mapping[Key, Barred],
        warmups: Warmups,
        usage: Usage,
    ) -> None:
        self._providers = providers
        self._pauses = pauses
        self._barred = barred
        self._stopped = switches.stopped_providers
        self._switches = switches
        self._warmups = warmups
        self._usage = usage
        self._probing: set[int] = set()

    def choose(self, message: Message, sender: Sender, recipient: Recipient) -> Way | NoWay:
        """The way of the sender's message to this person."""
        obstacles: list[NoWay] = []
        for provider in self._candidates(message, sender.provider_id):
            limits = self.limits(provider, message, sender, recipient)
            obstacle = (
                self._unfit(provider, message, recipient.region)
                or self._spent(limits)
                or self._refusing(provider, sender)
                or self._unwell(provider)
            )
            if isinstance(obstacle, NoWay):
                obstacles.append(obstacle)
                continue
            self._usage.count(limits)
            if obstacle is None:
                return Way(provider)
            self._probing.add(provider.pk)
            return obstacle
        # What passes soonest says more than what stands in the way of a stand-in.
        passing = [one for one in obstacles if one.reason not in _STANDING]
        if passing:
            return min(passing, key=lambda obstacle: obstacle.seconds)
        return obstacles[0] if obstacles else NoWay(Reason.NO_PROVIDER, seconds=_LOOK_AGAIN)

    def limits(
        self, provider: Provider, message: Message, sender: Sender, recipient: Recipient
    ) -> list[Limit]:
        """What the sender's mail to this person counts against."""
        address = recipient.email_normalized or ""
        return [
            *limits_of(provider),
            *self._warmups.limits(provider.pk, sender.domain, address),
            *self._switches.limits(message, sender, provider.key, address),
        ]

    def _candidates(self, message: Message, own: int) -> Iterator[Provider]:
        if message.replay_until is not None and message.provider_id is not None:
            # Only the provider that may have it can tell whether it has.
            own = message.provider_id
        provider = self._providers.get(own)
        if provider is None:
            return
        yield provider
        if not provider.pool or message.replay_until is not None:
            return
        mates = [
            mate
            for mate in self._providers.values()
            if mate.pool == provider.pool and mate.pk != provider.pk
        ]
        yield from sorted(mates, key=lambda mate: (mate.priority, mate.key))

    def _unfit(self, provider: Provider, message: Message, region: str) -> NoWay | None:
        if not provider.is_active:
            return NoWay(Reason.NO_PROVIDER, provider.key, _LOOK_AGAIN)
        if provider.carries not in ("", message.stream):
            words = f"{provider.key} carries {provider.carries} mail only"
            return NoWay(Reason.NO_PROVIDER, words, _LOOK_AGAIN)
        if provider.key in self._stopped:
            return NoWay(Reason.NO_PROVIDER, f"{provider.key} is stopped", _LOOK_AGAIN)
        if not _may_have(provider, region):
            words = f"{provider.key}: {region or 'region unknown'}"
            return NoWay(Reason.NO_REGION, words, _LOOK_AGAIN)
        return None

    def _spent(self, limits: Sequence[Limit]) -> NoWay | None:
        full = self._usage.full(limits)
        if full is None:
            return None
        return NoWay(reason_of(full.limit), full.limit.name, full.seconds)

    def _refusing(self, provider: Provider, sender: Sender) -> NoWay | None:
        barred = self._barred.get((provider.pk, sender.domain))
        if barred is None:
            return None
        words = f"{provider.key}, {sender.domain}: {barred.reason}"
        return NoWay(Reason.SENDER_REFUSED, words, barred.seconds)

    def _unwell(self, provider: Provider) -> NoWay | Way | None:
        pause = self._pauses.get(provider.pk, Pause())
        if pause.slow_for is not None and pause.slow_for > 0:
            return NoWay(Reason.PROVIDER_DOWN, provider.key, pause.slow_for)
        if pause.open_for is None:
            return None
        if pause.open_for > 0:
            return NoWay(Reason.PROVIDER_DOWN, provider.key, pause.open_for)
        if provider.pk in self._probing:
            return NoWay(Reason.PROVIDER_DOWN, provider.key, _PROBE_WAIT)
        return Way(provider, is_probe=True)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What changes seldom, and when it was read."""

    providers: Mapping[int, Provider]
    pauses: Mapping[int, Pause]
    barred: Mapping[Key, Barred]
    warmups: Warmups
    read_at: float

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() - self.read_at < settings.ROUTING_CACHE_SECONDS


_snapshot: _Snapshot | None = None


def load_router(switches: Switches) -> Router:
    """A router over all providers. No query where it was asked a moment ago, else three; with
    limits, warm-ups or slow-downs one or two more."""
    global _snapshot
    if _snapshot is None or not _snapshot.is_fresh:
        _snapshot = _read()
    known, usage = _snapshot, Usage()
    has_caps = any(limits_of(provider) for provider in known.providers.values())
    if known.warmups or switches.brakes or has_caps:
        usage.load()
    return Router(known.providers, known.pauses, switches, known.barred, known.warmups, usage)


def forget_routes() -> None:
    """A provider's circuit has changed, or whom it accepts: the next batch of this process has to
    know."""
    global _snapshot
    _snapshot = None


def _read() -> _Snapshot:
    read_at = time.monotonic()
    rows = Provider.objects.select_related("circuit").annotate(
        open_for=Extract(F("circuit__open_until") - Now(), "epoch"),
        slow_for=Extract(F("circuit__slow_until") - Now(), "epoch"),
    )
    providers, pauses = {}, {}
    for provider in rows:
        providers[provider.pk] = provider
        pauses[provider.pk] = Pause(_seconds(provider.open_for), _seconds(provider.slow_for))
    return _Snapshot(providers, pauses, load_pauses(), load_warmups(), read_at)


def reason_of(limit: Limit) -> Reason:
    """Why a message waits that this limit stops."""
    if limit.name.startswith(SLOW_PREFIX):
        return Reason.SLOWED
    return Reason.WARMING_UP if limit.name.startswith(warmup.PREFIX) else Reason.CAP_REACHED


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)


def _may_have(provider: Provider, region: str) -> bool:
    """Whether the data of a person of this region may go to the provider. Where residency counts,
    a person of unknown region is treated as of each of them, and a provider of unknown region as
    of none."""
    held_here = settings.EMAILAUTO.compliance.residency.regions
    if not provider.regions:
        return not held_here
    if region:
        return permits(provider.regions, region)
    return all(permits(provider.regions, pattern) for pattern in held_here)

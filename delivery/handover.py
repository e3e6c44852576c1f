"""Handing committed messages to their providers, each at most once.

Before a message's first byte its right is claimed in the batch's journal; its verdict is noted
there with the next beginning. So a crash leaves at most one call per connection in doubt, and a
worker that was frozen past its lease finds its right revoked. Without a journal a batch is one
message long.

Each provider's share is worked off by `connectionrun` or, over HTTP, by `httprun`. A verdict that
is the provider's fault, or a switch thrown meanwhile, ends it, one about a sending domain ends
that domain's: what has not been begun is given back.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from django.conf import settings

from delivery.connectionrun import ConnectionRun
from delivery.httprun import HttpRun
from delivery.journal import Journal
from delivery.models import Provider
from delivery.routes import Route, RouteError, Routes
from delivery.turns import Departed, Handed, Stops, Turns, no_way

logger = logging.getLogger(__name__)

# A batch that is slow to hand over gives the rest back rather than outliving its lease or a
# polite shutdown.
MAX_SECONDS = 5.0
# Of a lease: it began a little before the hand-over does.
_OF_LEASE = 0.9


def hand_over(
    departed: Sequence[Departed],
    routes: Routes,
    journal: Journal | None,
    stops: Stops,
    hear: Callable[[Sequence[Handed]], None],
) -> None:
    """Offer each message to its provider and tell `hear` what came of it. Those of which nothing is
    heard were not begun, unless this raises: then only the journal knows of them."""
    started = time.monotonic()
    end = started + min(MAX_SECONDS, settings.LEASE_SECONDS / 2)
    groups: dict[int, list[Departed]] = defaultdict(list)
    for item in departed:
        groups[item.outbound.provider.pk].append(item)
    for number, group in enumerate(groups.values()):
        provider = group[0].outbound.provider
        route = routes.of(provider)
        if isinstance(route, RouteError):
            hear([Handed(group[0], no_way(str(route)))])
            continue
        # A share of the time for each, so that a slow provider does not take it all.
        now = time.monotonic()
        deadline = now + (end - now) / (len(groups) - number)
        group.sort(key=lambda item: item.not_before)
        lease_end = started + settings.LEASE_SECONDS * _OF_LEASE
        turns = Turns(group, deadline, stops, lease_end=lease_end)
        run = _prepared(provider, route, turns)
        # A search for keys does not count against the mails, as far as the lease allows.
        lost = max(0.0, min(time.monotonic(), started + settings.LEASE_SECONDS / 4) - now)
        turns.deadline += lost
        end += lost
        try:
            if run is not None:
                run.all_of_it(journal)
        finally:
            hear(turns.handed)


def _prepared(provider: Provider, route: Route, turns: Turns) -> HttpRun | ConnectionRun | None:
    try:
        return (HttpRun if route.is_http else ConnectionRun)(provider, route, turns)
    except Exception as error:
        # Keys that cannot be had, a setting that its backend refuses: the other providers' mails
        # go on.
        logger.exception("no call can be prepared", extra={"provider": provider.key})
        turns.cannot_begin(f"cannot be used: {type(error).__name__}")
        return None

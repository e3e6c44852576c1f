"""What a provider has to bring so that its lists can be read and its log asked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from delivery.models import Message
from webhooks.kinds import Feedback
from webhooks.reconciliation.asking import Desk


@dataclass(frozen=True, slots=True)
class Window:
    """What of a list is asked for: what was put on it from `since` on (None: all of it). What is
    told without a time is as of `until`, when the run began."""

    since: datetime | None
    until: datetime

    def includes(self, moment: datetime) -> bool:
        """Whether an entry of that time is asked for."""
        return self.since is None or moment >= self.since


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list and where the next one is; empty: this was the last.

    `next` is the provider's word and of no meaning to anybody else. It may name an address. `told`
    is all of what the provider said of this part: where two parts in a row have the same, it does
    not listen to where we are."""

    feedback: Sequence[Feedback]
    next: str = ""
    told: Any = None


Fetch = Callable[[Desk, Window, str], Page]
"""(the account, what is asked for, where to go on) → a page. Raises `NotTold`."""

LookUp = Callable[[Desk, Message], Sequence[Feedback]]
"""(the account, a message) → what its log proves about it; nothing: it is not there, which proves
nothing. Raises `NotTold`."""


@dataclass(frozen=True, slots=True)
class Source:
    """One provider's lists, by the names they have here, and its log."""

    lists: Mapping[str, Fetch] = field(default_factory=dict)
    look_up: LookUp | None = None
    base: str = ""
    """Where its API is, unless the provider row says otherwise."""
    headers: Callable[[Mapping[str, Any]], Mapping[str, str]] = lambda _options: {}
    """The account's options → the headers that prove who asks."""

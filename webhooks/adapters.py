"""What a source of receipts has to bring, and what a provider besides, so that its webhooks can be
taken."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from webhooks.kinds import Feedback

MEGABYTE = 1024 * 1024


class NotAuthentic(Exception):
    """The call is not proven to be the provider's; the text says to the operator what is wrong."""


class CannotVerify(Exception):
    """Whether the call is authentic cannot be found out just now. It should be made again."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing a call tells, as it came; the same `id` in every repetition."""

    id: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where receipts come from, as far as the worker that applies them is concerned."""

    parse: Callable[[bytes, datetime], Sequence[Feedback]]
    """(an event's body, when it came) → what it means; raises `Malformed` and nothing else."""
    errand: Callable[[bytes], str] | None = None
    """An event's body → what was done besides, in a few words, or nothing. Outside of any
    transaction, and possibly more than once."""
    ids_are_single_use: bool = False
    """An id seen before with another body is a forgery: it was taken from an earlier call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter(Source):
    """One provider's webhooks. The functions here run while the provider waits."""

    admits: Callable[[Mapping[str, str]], bool]
    """headers → whether the body is worth reading. With the provider's settings empty: never."""
    verify: Callable[[Mapping[str, str], bytes, datetime], None]
    """(headers, body, now) → nothing; raises `NotAuthentic`, or `CannotVerify`."""
    events: Callable[[Mapping[str, str], bytes], list[Event]]
    """(headers, authentic body) → what it tells; raises `Malformed`."""
    waits: Callable[[bytes], bool] = lambda body: False
    """body → whether `verify` will ask the network, and so must not be called on an event loop."""
    settings: tuple[str, ...] = ("WEBHOOK_SECRET",)
    """Without any one of these its webhooks are closed."""
    max_body: int = MEGABYTE
    failure_status: int = 503
    """The answer when the fault is ours, chosen such that the provider calls again."""


def never_mind(headers: Mapping[str, str], body: bytes, now: datetime) -> None:
    """The verification of a provider whose headers have said it all."""

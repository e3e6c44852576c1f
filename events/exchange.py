"""An HTTP exchange as the wire formats see it: no framework, no sockets."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

from events.directory import Producer
from events.wire import Item, Outcome


class Post(msgspec.Struct, frozen=True):
    """A request whose body has been read whole and inflated. Header names are lower-case; `path`
    is what follows the format's prefix (`batch`)."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    received_at: datetime


class Reply(msgspec.Struct, frozen=True):
    """An answer, ready to be written."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}

    @classmethod
    def of(cls, status: int, document: Any, **headers: str) -> "Reply":
        """A JSON answer; `retry_after="2"` becomes the header `retry-after`."""
        return cls(
            status,
            msgspec.json.encode(document),
            {
                "content-type": "application/json",
                **{name.replace("_", "-"): value for name, value in headers.items()},
            },
        )


class Reading(msgspec.Struct, frozen=True):
    """What a request holds, and how to answer once it is known what became of each item: called
    with the items as they were read and their outcomes.

    `keeps_refused`: the producer is told "fine" whatever is refused, so that is kept for replay.
    """

    items: Sequence[Item]
    answer: Callable[[Sequence[Item], Sequence[Outcome]], Reply]
    keeps_refused: bool = False


class WireFormat(Protocol):
    """One way of posting events."""

    MAX_BODY: int
    """Bytes, after inflation."""
    REPLAYS: bool
    """Whether the format knows `Idempotency-Key`."""

    def read(self, post: Post, producer: Producer) -> Reading:
        """The events in the request; raises `common.api.ApiError` when it has to be refused
        whole. Pure: no database."""
        ...

    def token(self, post: Post) -> str:
        """The API key, where it stands in the body; empty when it does not."""
        ...

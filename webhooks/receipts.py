"""Keeping receipts: what every provider's call ends in."""

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from hashlib import sha256

import msgspec
from django.db import connection

from common.bell import ring
from events.steps import Steps, run
from webhooks.adapters import NotAuthentic
from webhooks.sources import SOURCES

LANE = "feedback"

# One JSON document carries the rows, as in the inbox; in it a body is base64.
_INSERT = """
    INSERT INTO webhooks_receipt
        (provider, provider_event_id, body, content_type, state, outcome, attempts, lease_owner,
         error)
    SELECT r.provider, r.event_id, decode(r.body, 'base64'), r.content_type, 'pending',
           '[]'::jsonb, 0, '', ''
    FROM json_to_recordset(%s::json)
         AS r (provider text, event_id text, body text, content_type text)
    ON CONFLICT (provider, provider_event_id) DO NOTHING
    RETURNING provider, provider_event_id
"""

_STORED = """
    SELECT r.provider, r.provider_event_id, sha256(r.body)
    FROM unnest(%s::text[], %s::text[]) AS k (provider, event_id)
    JOIN webhooks_receipt AS r
      ON r.provider = k.provider AND r.provider_event_id = k.event_id
"""

Key = tuple[str, str]


_WHOLE = "whole:"


def whole_id(body: bytes) -> str:
    """The event id of a call that is kept whole, because its adapter could not take it apart."""
    return f"{_WHOLE}{sha256(body).hexdigest()}"


def is_whole(event_id: str) -> bool:
    """Whether that is such an id. A provider's own that looks like one is of one object, which is
    read the same way."""
    return event_id.startswith(_WHOLE)


class NewReceipt(msgspec.Struct, frozen=True):
    """One thing an authentic call tells."""

    provider: str
    event_id: str
    body: bytes
    content_type: str = ""

    @property
    def key(self) -> Key:
        return self.provider, self.event_id


class Kept(Enum):
    """What became of a receipt."""

    KEPT = auto()
    """Now, or when it was told before."""
    REUSED = auto()
    """Not at all: its id is good for one body, and that was another."""


def keep(receipts: Sequence[NewReceipt]) -> Steps[list[Kept]]:
    """Store the receipts; idempotent per (provider, event id), of which the first body counts.

    One statement, two where an id that is good for one body was there before.
    """
    first: dict[Key, NewReceipt] = {}
    for receipt in receipts:
        first.setdefault(receipt.key, receipt)
    if not first:
        return []
    # In one order everywhere, so that two calls that tell partly the same do not wait for each
    # other.
    rows = [first[key] for key in sorted(first)]
    inserted = set((yield _INSERT, [msgspec.json.encode(rows).decode()]))
    doubtful = {r.key for r in receipts if SOURCES[r.provider].ids_are_single_use}
    digests = {key: sha256(first[key].body).digest() for key in doubtful & inserted}
    digests |= yield from _stored_digests(doubtful - inserted)
    return [_outcome(receipt, digests) for receipt in receipts]


def _outcome(receipt: NewReceipt, digests: Mapping[Key, bytes]) -> Kept:
    if not SOURCES[receipt.provider].ids_are_single_use:
        return Kept.KEPT
    is_first = digests.get(receipt.key) == sha256(receipt.body).digest()
    return Kept.KEPT if is_first else Kept.REUSED


def keep_receipts(receipts: Sequence[NewReceipt]) -> None:
    """Store what one call tells and wake the drain, on this thread.

    When this returns the rows are committed. Raises `NotAuthentic` when a single-use id was used
    before, with another body.
    """
    with connection.cursor() as cursor:
        outcomes = run(keep(receipts), cursor)
    ring(LANE)
    require_kept(outcomes)


def require_kept(outcomes: Sequence[Kept]) -> None:
    """Raise `NotAuthentic` for a call of which something was not kept."""
    if Kept.REUSED in outcomes:
        raise NotAuthentic("Its signature was used before, for another call.")


def _stored_digests(keys: set[Key]) -> Steps[dict[Key, bytes]]:
    if not keys:
        return {}
    rows = yield _STORED, [[provider for provider, _ in keys], [event_id for _, event_id in keys]]
    return {(provider, event_id): bytes(digest) for provider, event_id, digest in rows}

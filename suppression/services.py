"""Suppressing addresses, and asking whether one is suppressed.

Writer and dispatcher meet at a lock per address: whoever suppresses takes it exclusively, whoever
is about to commit a hand-over takes it shared. So once a suppression is committed, no hand-over
whose transaction starts later can pass, and there is no moment in between.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import Q

from common.addresses import Address, address_hash
from common.postgres import lock_names
from suppression.mirror import mirror_added
from suppression.models import Suppression
from suppression.states import RANK, SuppressionReason


@dataclass(frozen=True, slots=True)
class SuppressionRequest:
    """One address to suppress in one scope, with its reason and proof. Only a `SOFT_LIMIT` ends
    by itself."""

    address: Address
    scope: str
    reason: SuppressionReason
    source: str
    evidence: str = ""
    expires_at: datetime | None = None


def lock_addresses(hashes: Iterable[bytes], *, shared: bool) -> None:
    """Take the lock of each address until the transaction ends."""
    lock_names((b"address:" + digest for digest in hashes), shared=shared)


def suppress_addresses(requests: Sequence[SuppressionRequest]) -> int:
    """Suppress each address in its scope; returns how many rows are new or got a stronger reason.

    Idempotent. Takes effect at its commit for every hand-over that is not yet committed.
    """
    if not requests:
        return 0
    hashes = {request.address: address_hash(request.address.normalized) for request in requests}
    with transaction.atomic():
        lock_addresses(hashes.values(), shared=False)
        changed = _write(requests, hashes)
        # Only a convenience: a lost call is made up for by the mirror's next synchronisation.
        transaction.on_commit(lambda: mirror_added(set(hashes.values())))
    return changed


def suppressed_scopes(hashes: Iterable[bytes]) -> Mapping[bytes, frozenset[str]]:
    """The scopes in which each of these addresses is suppressed now; absent = none. One query."""
    found: dict[bytes, set[str]] = {}
    rows = Suppression.objects.in_force().filter(address_hash__in=list(hashes))
    for digest, scope in rows.values_list("address_hash", "scope"):
        found.setdefault(bytes(digest), set()).add(scope)
    return {digest: frozenset(scopes) for digest, scopes in found.items()}


def suppressions_of(hashes: Iterable[bytes]) -> list[tuple[str, str]]:
    """(scope, reason) of everything these addresses are suppressed for. One query."""
    rows = Suppression.objects.filter(address_hash__in=list(hashes))
    return list(rows.values_list("scope", "reason"))


def lift_unsubscribes(hashes: Iterable[bytes], scopes: Iterable[str]) -> int:
    """Forget that these people unsubscribed themselves, in these scopes, because they asked to be
    mailed again; returns how many rows are gone. No other reason is ever lifted by this.

    The mirror may go on naming them until its next synchronisation: wrong on the safe side.
    """
    hashes = list(hashes)
    with transaction.atomic():
        lock_addresses(hashes, shared=False)
        theirs = Suppression.objects.filter(
            address_hash__in=hashes, scope__in=list(scopes), reason=SuppressionReason.UNSUBSCRIBE
        )
        return theirs.delete()[0]


def _write(requests: Sequence[SuppressionRequest], hashes: Mapping[Address, bytes]) -> int:
    wanted = {(hashes[r.address], r.scope): r for r in reversed(requests)}
    for request in requests:
        key = (hashes[request.address], request.scope)
        if RANK[request.reason] < RANK[wanted[key].reason]:
            wanted[key] = request
    known = {
        (bytes(row.address_hash), row.scope): row
        for row in Suppression.objects.filter(Q(address_hash__in=[digest for digest, _ in wanted]))
    }
    new = [
        Suppression(
            address_hash=digest,
            email=request.address.email,
            scope=scope,
            reason=request.reason,
            source=request.source,
            evidence=request.evidence,
            expires_at=request.expires_at,
        )
        for (digest, scope), request in wanted.items()
        if (digest, scope) not in known
    ]
    Suppression.objects.bulk_create(new)
    return len(new) + _strengthen(wanted, known)


def _strengthen(
    wanted: Mapping[tuple[bytes, str], SuppressionRequest],
    known: Mapping[tuple[bytes, str], Suppression],
) -> int:
    stronger = []
    for key, row in known.items():
        request = wanted.get(key)
        if request is not None and _says_more(request, row):
            row.reason, row.source = request.reason, request.source
            row.evidence, row.expires_at = request.evidence, request.expires_at
            stronger.append(row)
    Suppression.objects.bulk_update(stronger, ["reason", "source", "evidence", "expires_at"])
    return len(stronger)


def _says_more(request: SuppressionRequest, row: Suppression) -> bool:
    if request.reason == row.reason and request.expires_at and row.expires_at:
        return request.expires_at > row.expires_at
    return RANK[request.reason] < RANK[row.reason]


def limited_addresses(hashes: Iterable[bytes]) -> set[bytes]:
    """Those of these addresses that are suppressed because nothing arrived. One query."""
    rows = Suppression.objects.filter(
        address_hash__in=list(hashes), reason=SuppressionReason.SOFT_LIMIT
    )
    return {bytes(digest) for digest in rows.values_list("address_hash", flat=True)}


def lift_limits(hashes: Iterable[bytes]) -> int:
    """Let these addresses be mailed again, as far as only the soft limit kept them from it;
    returns how many rows went. The mirror follows with its next synchronisation."""
    rows = Suppression.objects.filter(
        address_hash__in=list(hashes), reason=SuppressionReason.SOFT_LIMIT
    )
    return rows.delete()[0]

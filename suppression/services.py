"""Suppressing addresses, and asking whether one is suppressed.

Writer and dispatcher meet at a lock per address: whoever suppresses takes it exclusively, whoever
is about to commit a hand-over takes it shared. So once a suppression is committed, no hand-over
whose transaction starts later can pass, and there is no moment in between.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction

from common.addresses import Address, address_hash
from common.postgres import array, lock_names
from suppression.mirror import mirror_added
from suppression.models import Suppression
from suppression.states import RANK, SuppressionReason

# `SuppressionQuerySet.in_force`, without what the ORM takes to say it.
_IN_FORCE = """
    SELECT address_hash, scope FROM suppression_suppression
    WHERE address_hash = ANY(%s::bytea[])
          AND (expires_at IS NULL OR expires_at > statement_timestamp())
"""
_CHANGED = ("email", "reason", "source", "evidence", "beneath", "expires_at")


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

    Idempotent. Takes effect at its commit for every hand-over that is not yet committed. Of whom
    was erased only the hash is written, whoever tells what of them.
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
    with connection.cursor() as cursor:
        cursor.execute(_IN_FORCE, [array(hashes)])
        rows = cursor.fetchall()
    for digest, scope in rows:
        found.setdefault(bytes(digest), set()).add(scope)
    return {digest: frozenset(scopes) for digest, scopes in found.items()}


def suppressions_of(hashes: Iterable[bytes]) -> list[tuple[str, str]]:
    """(scope, reason) of everything these addresses are suppressed for now, weaker reasons beneath
    stronger ones as well. One query."""
    rows = Suppression.objects.in_force().filter(address_hash__in=list(hashes))
    return [(row.scope, reason) for row in rows for reason in sorted(row.reasons)]


def forgotten_addresses(hashes: Iterable[bytes]) -> set[bytes]:
    """Those of these addresses whose owner was erased: nothing that comes in about them may be kept
    in clear. One query."""
    rows = Suppression.objects.filter(address_hash__in=list(hashes))
    return {bytes(row.address_hash) for row in rows if SuppressionReason.ERASURE in row.reasons}


def lift_unsubscribes(hashes: Iterable[bytes], scopes: Iterable[str]) -> int:
    """Forget that these people unsubscribed themselves, in these scopes, because they asked to be
    mailed again; returns of how many rows that was a reason. What else there is stays, and what
    was beneath it counts again.

    The mirror may go on naming them until its next synchronisation: wrong on the safe side.
    """
    hashes = list(hashes)
    with transaction.atomic():
        lock_addresses(hashes, shared=False)
        rows = Suppression.objects.filter(address_hash__in=hashes, scope__in=list(scopes))
        theirs = [row for row in rows if SuppressionReason.UNSUBSCRIBE in row.reasons]
        kept = [row for row in theirs if row.lift(SuppressionReason.UNSUBSCRIBE)]
        Suppression.objects.bulk_update(kept, _CHANGED)
        gone = [row.pk for row in theirs if row not in kept]
        Suppression.objects.filter(pk__in=gone).delete()
    return len(theirs)


def _write(requests: Sequence[SuppressionRequest], hashes: Mapping[Address, bytes]) -> int:
    told: dict[tuple[bytes, str], list[SuppressionRequest]] = {}
    for request in requests:
        told.setdefault((hashes[request.address], request.scope), []).append(request)
    rows = list(Suppression.objects.filter(address_hash__in=[digest for digest, _ in told]))
    known = {(bytes(row.address_hash), row.scope): row for row in rows}
    erasing = {hashes[r.address] for r in requests if r.reason == SuppressionReason.ERASURE}
    erased = {bytes(row.address_hash) for row in rows if SuppressionReason.ERASURE in row.reasons}
    # The strongest first; of equal ones the one that was named first.
    ordered = {key: sorted(group, key=lambda r: RANK[r.reason]) for key, group in told.items()}
    fresh = {key: _row(key, group[0]) for key, group in ordered.items() if key not in known}
    stronger, deeper = [], []
    for key, group in ordered.items():
        row = known.get(key) or fresh[key]
        if _says_more(group[0], row):
            _strengthen(row, group[0])
            stronger.append(row)
        if _add_beneath(row, group):
            deeper.append(row)
        if key[0] in erasing | erased:
            row.forget()
    Suppression.objects.bulk_create(fresh.values())
    changed = {row.pk: row for row in (*stronger, *deeper) if row.pk is not None}
    Suppression.objects.bulk_update(changed.values(), _CHANGED)
    return len(fresh) + len(stronger)


def _row(key: tuple[bytes, str], request: SuppressionRequest) -> Suppression:
    digest, scope = key
    return Suppression(
        address_hash=digest,
        email=request.address.email,
        scope=scope,
        reason=request.reason,
        source=request.source,
        evidence=request.evidence,
        expires_at=request.expires_at,
    )


def _strengthen(row: Suppression, request: SuppressionRequest) -> None:
    if request.reason != row.reason:
        row.put_beneath(row.reason, row.source, row.evidence)
    row.reason, row.source = request.reason, request.source
    row.evidence, row.expires_at = request.evidence, request.expires_at


def _add_beneath(row: Suppression, requests: Iterable[SuppressionRequest]) -> bool:
    """Whether any of these reasons is one the row does not have yet."""
    before = len(row.beneath)
    for request in requests:
        if request.reason not in row.reasons:
            row.put_beneath(request.reason, request.source, request.evidence)
    return len(row.beneath) > before


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

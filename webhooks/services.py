"""Applying receipts in batches."""

import logging
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

import msgspec
from django.conf import settings
from django.db import Error, connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from common.bell import ring
from common.clock import now
from common.ids import lease_owner
from common.outages import insist, is_outage
from common.steps import run_each
from webhooks.adapters import MEGABYTE
from webhooks.answers import apply_answers
from webhooks.feedback import FORGOTTEN, Feedback, apply_feedback
from webhooks.models import Receipt
from webhooks.reading import elements
from webhooks.receipts import is_whole
from webhooks.sources import SOURCES
from webhooks.states import DUE_STATES, ReceiptState
from webhooks.visits import judge_visits

logger = logging.getLogger(__name__)

BATCH = 500
MOST_BYTES = 8 * MEGABYTE
"""In a batch, or one receipt: mails from the bounce mailbox are large, and one of the worst kind
takes half a second to read. Together they have to be read well within their lease."""
MAX_ATTEMPTS = 5

LOOKS = tuple(timedelta(minutes=m) for m in (1, 10, 60, 6 * 60, 24 * 60, 72 * 60))
"""Since it came: when a receipt about a message nobody knows is looked at again."""

# Seconds until the next attempt; the last attempt ends in the dead letters.
_BACKOFF = (10, 60, 300, 1_800)

# Fresh ones and those tried before have an index each: looking for the few among the many would
# be a scan of all that waits.
_CLAIM = """
    WITH due AS MATERIALIZED (
        SELECT id, due_at, octet_length(body) AS bytes FROM webhooks_receipt
        WHERE state IN ('pending', 'parked') AND due_at <= statement_timestamp()
              AND attempts {which} 0
              AND (claimed_until IS NULL OR claimed_until < statement_timestamp())
        ORDER BY due_at, id LIMIT %s FOR UPDATE SKIP LOCKED
    ), few AS (
        SELECT id, sum(bytes) OVER (ORDER BY due_at, id) - bytes AS bytes_before FROM due
    )
    UPDATE webhooks_receipt
    SET attempts = attempts + 1, lease_owner = %s,
        claimed_until = statement_timestamp() + %s * interval '1 second'
    WHERE id IN (SELECT id FROM few WHERE bytes_before < %s)
    RETURNING id, provider, provider_event_id, body, received_at, attempts, outcome
"""

_RECORD = """
    UPDATE webhooks_receipt AS r
    SET state = CASE WHEN d.look_at IS NULL THEN 'applied' ELSE 'parked' END,
        attempts = CASE WHEN d.look_at IS NULL THEN r.attempts ELSE 0 END,
        due_at = coalesce(d.look_at, r.due_at), outcome = d.outcome::jsonb, error = '',
        body = CASE WHEN d.look_at IS NULL AND d.is_forgotten THEN '' ELSE r.body END,
        claimed_until = NULL, lease_owner = ''
    FROM unnest(%s::bigint[], %s::int[], %s::text[], %s::timestamptz[], %s::boolean[])
         AS d (id, attempt, outcome, look_at, is_forgotten)
    WHERE r.id = d.id AND r.attempts = d.attempt AND r.state IN ('pending', 'parked')
          AND r.lease_owner = %s
"""

_FAIL = """
    UPDATE webhooks_receipt
    SET state = %s, error = %s, due_at = statement_timestamp() + %s * interval '1 second',
        claimed_until = NULL, lease_owner = ''
    WHERE id = %s AND attempts = %s AND state IN ('pending', 'parked') AND lease_owner = %s
"""

_BURY = """
    UPDATE webhooks_receipt
    SET state = 'dead', error = %s, claimed_until = NULL, lease_owner = ''
    WHERE state IN ('pending', 'parked') AND attempts >= %s
          AND claimed_until < statement_timestamp()
"""


def drain(*, budget: float) -> bool:
    """Apply what came back, in the hand-over, by our own links or later, for up to `budget`
    seconds, each at least once; True if there may be more.

    They take turns, so that a flood of one leaves none of the others lying. One that fails keeps
    none of them from being done; raises `ExceptionGroup` in the end.
    """
    deadline = time.monotonic() + budget
    parts: list[Callable[[], bool]] = [_bury_killers, apply_answers, judge_visits, _drain_once]
    errors: list[Exception] = []
    while parts:
        more = []
        for part in parts:
            found, failed = run_each(part)
            errors += failed
            more += [part] if any(found) else []
        parts = more
        if time.monotonic() >= deadline:
            break
    if errors:
        raise ExceptionGroup("not everything that came back could be applied", errors)
    return bool(parts)


def drain_receipts(*, budget: float) -> bool:
    """Apply the receipts that are due for up to `budget` seconds; True if there may be more."""
    deadline = time.monotonic() + budget
    _bury_killers()
    while time.monotonic() < deadline:
        if not _drain_once():
            return False
    return True


def _drain_once() -> bool:
    """A batch of fresh receipts, and one that was tried before; True if there may be more."""
    fresh = _work(limit=BATCH, tried=False)
    # One at a time: a receipt that kills its worker must not take neighbours along.
    tried = _work(limit=1, tried=True)
    return bool(fresh or tried)


def replay_receipts(ids: Iterable[int]) -> int:
    """Give dead receipts another five attempts; returns how many were dead. Idempotent."""
    revived = Receipt.objects.filter(pk__in=list(ids), state=ReceiptState.DEAD).update(
        state=ReceiptState.PENDING,
        attempts=0,
        error="",
        due_at=Now(),
        claimed_until=None,
        lease_owner="",
    )
    if revived:
        ring("feedback")
    return revived


def _work(*, limit: int, tried: bool) -> int:
    owner = lease_owner()
    claim = _CLAIM.format(which=">" if tried else "=")
    parameters = [limit, owner, settings.LEASE_SECONDS, MOST_BYTES]
    receipts = list(Receipt.objects.raw(claim, parameters))
    if receipts:
        try:
            _apply_or_fail(sorted(receipts, key=lambda receipt: receipt.pk), owner)
        except Error:
            insist(lambda: _release(receipts, owner))
            raise
    return len(receipts)


def _apply_or_fail(receipts: Sequence[Receipt], owner: str) -> None:
    try:
        _apply(receipts, owner)
    except Exception as error:
        if is_outage(error):  # that is no receipt's fault
            raise
        # Alone, each stands for itself only.
        if len(receipts) == 1:
            _fail(receipts[0], owner)
            return
        for receipt in receipts:
            _apply_or_fail([receipt], owner)


def _apply(receipts: Sequence[Receipt], owner: str) -> None:
    parsed = [_parse(receipt) for receipt in receipts]
    errands = [_run_errand(receipt) for receipt in receipts]
    with transaction.atomic():
        done = iter(apply_feedback(list(chain.from_iterable(parsed))))
        outcomes = [
            errand + [next(done) for _ in feedback]
            for errand, feedback in zip(errands, parsed, strict=True)
        ]
        looks = [_next_look(*row) for row in zip(receipts, parsed, outcomes, strict=True)]
        _record(receipts, outcomes, looks, owner)


def _parse(receipt: Receipt) -> list[Feedback]:
    """What it tells, and since when that is known. One that was looked at before has an outcome,
    whatever has become of it since."""
    parse, body = SOURCES[receipt.provider].parse, bytes(receipt.body)
    parts = elements(body) if is_whole(receipt.provider_event_id) else [body]
    told = chain.from_iterable(parse(part, receipt.received_at) for part in parts)
    is_repeated = bool(receipt.outcome)
    return [replace(item, known_at=receipt.received_at, is_repeated=is_repeated) for item in told]


def _next_look(
    receipt: Receipt, feedback: Sequence[Feedback], outcome: Sequence[dict[str, Any]]
) -> datetime | None:
    """When to look again for the messages it names; None when they are found, or never will be.

    A provider may tell of a mail before its own answer has been recorded. What had to be done
    about the address is done, and no later look does it again.
    """
    is_found = any(entry.get("message") for entry in outcome)
    if is_found or not any(item.names_a_message for item in feedback):
        return None
    moments = (receipt.received_at + age for age in LOOKS)
    return next((moment for moment in moments if moment > now()), None)


def _run_errand(receipt: Receipt) -> list[dict[str, Any]]:
    """Do what a call asks for besides; returns what the receipt shows of it."""
    errand = SOURCES[receipt.provider].errand
    words = errand(bytes(receipt.body)) if errand is not None else ""
    return [{"kind": words, "class": "", "message": None, "effects": []}] if words else []


def _record(
    receipts: Sequence[Receipt],
    outcomes: Sequence[list[dict[str, Any]]],
    looks: Sequence[datetime | None],
    owner: str,
) -> None:
    columns = (
        [receipt.pk for receipt in receipts],
        [receipt.attempts for receipt in receipts],
        [msgspec.json.encode(outcome).decode() for outcome in outcomes],
        list(looks),
        [any(FORGOTTEN in told.get("effects", ()) for told in outcome) for outcome in outcomes],
        owner,
    )
    with connection.cursor() as cursor:
        cursor.execute(_RECORD, columns)
        lost = len(receipts) - cursor.rowcount
    if lost:
        # Another worker has taken them over and does the same; doing it twice is harmless.
        logger.warning("receipt leases lost", extra={"receipts": lost})


def _fail(receipt: Receipt, owner: str) -> None:
    dead = receipt.attempts >= MAX_ATTEMPTS
    state = ReceiptState.DEAD if dead else ReceiptState.PENDING
    delay = 0 if dead else _BACKOFF[receipt.attempts - 1]
    error = traceback.format_exc().replace("\x00", "")
    parameters = (state.value, error, delay, receipt.pk, receipt.attempts, owner)
    with connection.cursor() as cursor:
        cursor.execute(_FAIL, parameters)
    logger.warning("receipt failed", extra={"receipt": receipt.pk, "dead": dead}, exc_info=dead)


def _release(receipts: Sequence[Receipt], owner: str) -> None:
    """Give back what the end of the database left leased, as if it had not been claimed."""
    ids = [receipt.pk for receipt in receipts]
    Receipt.objects.filter(pk__in=ids, lease_owner=owner, state__in=DUE_STATES).update(
        claimed_until=None, lease_owner="", attempts=F("attempts") - 1
    )


def _bury_killers() -> bool:
    """Receipts whose every attempt ended with the worker's death never get to `_fail`. Done in one
    go: there is never more."""
    with connection.cursor() as cursor:
        cursor.execute(_BURY, ["The worker died in every attempt.", MAX_ATTEMPTS])
        buried = cursor.rowcount
    if buried:
        logger.warning("receipts buried", extra={"receipts": buried})
    return False

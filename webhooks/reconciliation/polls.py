"""Reading the providers' lists, each once a day, page by page: what was lost is found there.

A page is asked for outside of any transaction, applied, and ticked off by whoever holds the lease.
To apply one twice changes nothing.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Now

from common.addresses import address_hash
from common.ids import lease_owner
from common.outages import is_outage
from delivery.routes import RouteError
from suppression.services import suppressed_scopes
from webhooks.feedback import apply_feedback
from webhooks.kinds import Feedback
from webhooks.models import Poll
from webhooks.reconciliation.accounts import Account, desk_of
from webhooks.reconciliation.asking import Desk, NotTold, WrongQuestion
from webhooks.reconciliation.sources import Page, Window

logger = logging.getLogger(__name__)

BATCH = 200
OVERLAP = timedelta(days=3)
"""What is read again each time: lists fill late, and clocks and time zones differ."""

_FIRST_PAUSE, _LONGEST_PAUSE = 300.0, 6 * 3_600.0
# A place that was refused so often in a row may be what is wrong: the run begins anew.
_PATIENCE = 3
# Of a run, however many tasks take part in it.
_MOST_PAGES = 100_000
# Between two readings by hand where nobody else reads.
_USUAL_HOURS = 24.0

_SUPPRESSED = "suppressed:"

_CLAIM = """
    UPDATE webhooks_poll
    SET lease_owner = %s, claimed_until = statement_timestamp() + %s * interval '1 second',
        last_run_at = statement_timestamp(),
        entries = CASE WHEN until IS NULL THEN 0 ELSE entries END,
        restored = CASE WHEN until IS NULL THEN 0 ELSE restored END,
        pages = CASE WHEN page = '' THEN 0 ELSE pages END,
        page_digest = CASE WHEN page = '' THEN '' ELSE page_digest END,
        until = coalesce(until, statement_timestamp())
    WHERE id = (
        SELECT p.id FROM webhooks_poll AS p
        JOIN unnest(%s::bigint[], %s::text[]) AS a (provider_id, source)
          ON a.provider_id = p.provider_id AND a.source = p.source
        WHERE p.due_at <= statement_timestamp()
              AND (p.claimed_until IS NULL OR p.claimed_until < statement_timestamp())
        ORDER BY p.due_at, p.id LIMIT 1 FOR UPDATE OF p SKIP LOCKED)
    RETURNING *
"""

_ADVANCE = """
    UPDATE webhooks_poll
    SET entries = entries + %s, restored = restored + %s, page = %s, pages = pages + %s,
        page_digest = %s, failures = 0, refusals = 0,
        claimed_until = statement_timestamp() + %s * interval '1 second'
    WHERE id = %s AND lease_owner = %s
"""

_FINISH = """
    UPDATE webhooks_poll
    SET since = until, until = NULL, page = '', page_digest = '',
        last_ok_at = statement_timestamp(), last_error = '', failures = 0, refusals = 0,
        claimed_until = NULL, lease_owner = '',
        due_at = statement_timestamp() + %s * interval '1 second'
    WHERE id = %s AND lease_owner = %s
"""

_PAUSE = """
    UPDATE webhooks_poll
    SET due_at = statement_timestamp(), claimed_until = NULL, lease_owner = ''
    WHERE id = %s AND lease_owner = %s
"""

# Whoever is away, asks for time or wants another key says nothing about the place.
_FAIL = """
    UPDATE webhooks_poll
    SET last_error = %s, failures = least(failures + 1, 1000), claimed_until = NULL,
        lease_owner = '',
        page = CASE WHEN %s AND refusals + 1 >= %s THEN '' ELSE page END,
        refusals = CASE WHEN NOT %s THEN refusals
                        WHEN refusals + 1 >= %s THEN 0 ELSE refusals + 1 END,
        due_at = statement_timestamp() + %s * interval '1 second'
    WHERE id = %s AND lease_owner = %s
"""


class LeaseLost(Exception):
    """Another worker has taken the poll over and does the same."""


def plan_polls(accounts: Iterable[Account]) -> None:
    """A row for each list of each account; those that are there stay as they are."""
    polls = [
        Poll(provider=account.provider, source=account.kind, list=name)
        for account in accounts
        for name in account.source.lists
    ]
    known = set(Poll.objects.values_list("provider", "source", "list"))
    new = [poll for poll in polls if (poll.provider_id, poll.source, poll.list) not in known]
    Poll.objects.bulk_create(new, ignore_conflicts=True)


def hurry_polls(polls: Iterable[int]) -> int:
    """Make these due now; returns how many are. Who reads one at the moment goes on reading."""
    return Poll.objects.filter(pk__in=list(polls)).update(due_at=Now())


def forget_cursors(polls: Iterable[int]) -> int:
    """Have these read from the beginning, now; returns how many will be. A run under way ends
    without effect on the cursor: it loses its lease."""
    return Poll.objects.filter(pk__in=list(polls)).update(
        since=None,
        until=None,
        page="",
        refusals=0,
        due_at=Now(),
        claimed_until=None,
        lease_owner="",
    )


def run_polls(accounts: Sequence[Account], *, deadline: float) -> bool:
    """Read what is due until `deadline` (by `time.monotonic`), begun pages to their end; True if
    there may be more."""
    while time.monotonic() < deadline:
        owner = lease_owner()
        poll = _claim(accounts, owner)
        if poll is None:
            return False
        account = next(a for a in accounts if a.provider.pk == poll.provider_id)
        _run(poll, account, deadline)
    return True


def _claim(accounts: Sequence[Account], owner: str) -> Poll | None:
    columns = [[a.provider.pk for a in accounts], [a.kind for a in accounts]]
    rows = Poll.objects.raw(_CLAIM, [owner, settings.LEASE_SECONDS, *columns])
    return next(iter(rows), None)


def _run(poll: Poll, account: Account, deadline: float) -> None:
    try:
        with desk_of(account) as desk:
            _read(poll, account, desk, deadline)
    except LeaseLost:
        logger.warning("poll taken over", extra={"poll": poll.pk})
    except NotTold as error:
        _fail(poll, str(error), wait=error.wait, blames_place=error.blames_question)
    except RouteError as error:
        _fail(poll, str(error))
    except Exception as error:
        if is_outage(error):  # the lease ends, and somebody goes on
            raise
        # A list in a shape nobody has thought of must not keep the others from being read.
        logger.exception("poll failed", extra={"poll": poll.pk})
        _fail(poll, f"failed: {type(error).__name__}", blames_place=True)


def _read(poll: Poll, account: Account, desk: Desk, deadline: float) -> None:
    fetch, window = account.source.lists[poll.list], _window(poll)
    while True:
        page = fetch(desk, window, poll.page)
        digest = _digest_of(page)
        _require_progress(poll, page, digest)
        _keep(poll, page, digest)
        if not page.next:
            return _move(poll, _FINISH, _interval())
        poll.page, poll.page_digest = page.next, digest
        poll.pages += 1
        if time.monotonic() >= deadline:
            return _move(poll, _PAUSE)


def _digest_of(page: Page) -> str:
    """Of what the provider told; empty: nothing."""
    if not page.told:
        return ""
    written = json.dumps(page.told, sort_keys=True, default=str)
    return hashlib.sha256(written.encode()).hexdigest()


def _require_progress(poll: Poll, page: Page, digest: str) -> None:
    """Raise `WrongQuestion` for a list that would be read for ever."""
    if page.next and page.next == poll.page:
        raise WrongQuestion("a page that follows itself")
    if digest and digest == poll.page_digest:
        raise WrongQuestion("the same page as before: it does not listen to where we are")
    if page.next and poll.pages >= _MOST_PAGES:
        raise WrongQuestion("a list without an end")


def _interval() -> float:
    hours: float = settings.RECONCILE_HOURS
    return (hours if hours > 0 else _USUAL_HOURS) * 3_600.0


def _window(poll: Poll) -> Window:
    assert poll.until is not None  # the claim has set it
    return Window(poll.since - OVERLAP if poll.since is not None else None, poll.until)


def _keep(poll: Poll, page: Page, digest: str) -> None:
    """Apply the page, and with its last part tick it off."""
    parts = [page.feedback[n : n + BATCH] for n in range(0, len(page.feedback), BATCH)] or [()]
    for number, part in enumerate(parts, start=1):
        is_last = number == len(parts)
        place = (page.next, 1, digest) if is_last else (poll.page, 0, poll.page_digest)
        with transaction.atomic():
            restored = _apply(part)
            _move(poll, _ADVANCE, len(part), restored, *place, settings.LEASE_SECONDS)


def _apply(feedback: Sequence[Feedback]) -> int:
    """Returns how many of these addresses were not suppressed that far."""
    digests = {item.address: _digest(item) for item in feedback if item.address is not None}
    before = suppressed_scopes(digests.values())
    missed = set()
    for item, outcome in zip(feedback, apply_feedback(feedback), strict=True):
        digest = digests.get(item.address) if item.address is not None else None
        for effect in outcome["effects"]:
            scope = effect.removeprefix(_SUPPRESSED)
            if digest and scope != effect and scope not in before.get(digest, ()):
                missed.add((digest, scope))
    return len(missed)


def _digest(item: Feedback) -> bytes:
    assert item.address is not None
    return address_hash(item.address.normalized)


def _fail(poll: Poll, why: str, *, wait: float | None = None, blames_place: bool = False) -> None:
    pause = min(_FIRST_PAUSE * 2 ** min(poll.failures, 10), _LONGEST_PAUSE)
    # What it asks for is what it gets, within reason.
    pause = min(wait, _LONGEST_PAUSE) if wait is not None else pause
    logger.warning("poll failed", extra={"poll": poll.pk, "source": poll.source, "why": why[:200]})
    try:
        blame = (blames_place, _PATIENCE)
        _move(poll, _FAIL, why[:200], *blame, *blame, pause)
    except LeaseLost:
        logger.warning("poll taken over", extra={"poll": poll.pk})


def _move(poll: Poll, statement: str, *parameters: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, [*parameters, poll.pk, poll.lease_owner])
        if not cursor.rowcount:
            raise LeaseLost

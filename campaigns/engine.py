"""The automation engine: a batch of events in, contacts, enrollments and messages out, in one
transaction with a constant number of queries.

Everything that may change a person's way through a campaign holds that contact's row lock, so
what is read here about a person stays true until the commit.
"""

import logging
import time
import traceback
from collections.abc import Sequence
from functools import partial

from django.db import transaction

from campaigns.batch import AWAITED, ENTERED, Batch, Case, find_contacts, identified
from campaigns.writing import write
from common.bell import ring
from common.ids import lease_owner
from common.outages import insist, is_outage
from events.inbox import Settlement, claim_events, fail_event, release_events, settle_events
from events.models import Event
from events.states import IgnoredReason

logger = logging.getLogger(__name__)

BATCH = 200


def drain(*, budget: float) -> bool:
    """Process what is due in the inbox for up to `budget` seconds; True if there may be more.

    What comes in after a batch that was not full has rung again, and waits for its turn behind
    the other lanes' work: whoever shares this worker would else wait for the inbox to run dry.
    """
    deadline = time.monotonic() + budget
    while time.monotonic() < deadline:
        fresh = process_batch(limit=BATCH)
        # Alone, so that an event that kills its worker does not take neighbours to the grave.
        retried = process_batch(limit=1, retried=True)
        if fresh < BATCH and not retried:
            return False
    return True


def process_batch(*, limit: int, retried: bool = False) -> int:
    """Claim up to `limit` due events and process them; returns how many were claimed.

    A batch that fails is given back and its events come again one by one, so that only the one
    that is at fault fails for good. When the database was lost, none of them was: it is raised
    that it was, since the next batch would fare no better.
    """
    owner = lease_owner()
    events = claim_events(owner=owner, limit=limit, retried=retried)
    if not events:
        return 0
    try:
        with transaction.atomic():
            lanes = _process(events, owner)
    except Exception as error:
        # The end of the lane: any other fault is the events'.
        insist(partial(_give_up, events, error, owner))
        if is_outage(error):
            raise
    else:
        ring(*lanes)
    return len(events)


def _give_up(events: Sequence[Event], error: Exception, owner: str) -> None:
    ids = {"first": events[0].pk, "events": len(events), "error": type(error).__name__}
    if is_outage(error):
        logger.warning("database lost, the batch comes again", extra=ids)
        release_events([event.pk for event in events], owner=owner, tried=False)
    elif len(events) > 1:
        logger.warning("batch failed, its events come again one by one", extra=ids)
        release_events([event.pk for event in events], owner=owner, tried=True)
    else:
        logger.warning("event failed", extra=ids)
        fail_event(events[0], "".join(traceback.format_exception(error))[-8_000:], owner=owner)


def _process(events: Sequence[Event], owner: str) -> list[str]:
    cases = identified(events)
    with_person = [case for case in cases if not case.identity.is_empty]
    contacts = find_contacts(with_person)
    welcome = [case for case in with_person if not case.is_late and not case.is_loop]
    batch = Batch(welcome)
    for case in welcome:
        batch.continue_waiting(case)
        batch.enter_matching(case)
        batch.remember(case)
    lanes = write(batch.writes, contacts)
    settle_events([_settlement(case) for case in cases], owner=owner)
    return lanes


def _settlement(case: Case) -> Settlement:
    if case.identity.is_empty:
        return Settlement(case.event.pk, reason=IgnoredReason.NO_PERSON)
    if case.is_late:
        return Settlement(case.event.pk, case.contact.pk, IgnoredReason.LATE)
    if case.is_loop:
        return Settlement(case.event.pk, case.contact.pk, IgnoredReason.LOOP)
    results = {str(entry["result"]) for entry in case.outcome}
    return Settlement(case.event.pk, case.contact.pk, _ignored_because(results), case.outcome)


def _ignored_because(results: set[str]) -> IgnoredReason | None:
    if not results:
        return IgnoredReason.NO_CAMPAIGN
    if results & {ENTERED, AWAITED}:
        return None
    # What came closest to a mail says most.
    for reason in (IgnoredReason.ALREADY_ENROLLED, IgnoredReason.CAMPAIGN_PAUSED):
        if reason in results:
            return reason
    return IgnoredReason.NOT_MATCHED

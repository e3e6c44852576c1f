"""Looking for messages of which nobody knows in the logs of their providers.

What is found was taken: that is proof, and the message counts as sent. What is not found may still
have been taken, because logs are late and forget; it stays with the operator.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from django.db import connection

from common.outages import is_outage
from delivery.models import LookUp, Message
from delivery.routes import RouteError
from webhooks.feedback import apply_feedback
from webhooks.kinds import Feedback
from webhooks.reconciliation.accounts import Account, desk_of
from webhooks.reconciliation.asking import Desk, NotAllowed, NotTold

logger = logging.getLogger(__name__)

BATCH = 20
FIRST_AFTER = 300
"""Seconds from the hand-over to the first look."""
AGAIN_AFTER = (3_600, 21_600, 86_400)
"""Seconds from each look to the next one; after the last it is left to the operator."""

_LEAST_PAUSE, _LONGEST_PAUSE = 60.0, 6 * 3_600.0
_AT_ONCE = 1_000

# A resend is a new doubt, and looked up anew. Behind the plus stands how it went (`Route.way_of`).
_PLAN = """
    INSERT INTO delivery_lookup AS l (message_id, attempt, tries, due_at, result, detail)
    SELECT m.id, m.attempts, 0, m.handed_over_at + %s * interval '1 second', '', ''
    FROM delivery_message AS m
    JOIN unnest(%s::bigint[], %s::text[]) AS a (provider_id, route)
      ON a.provider_id = m.provider_id AND a.route = split_part(m.route, '+', 1)
    WHERE m.state = 'unknown' AND m.handed_over_at IS NOT NULL AND NOT EXISTS (
        SELECT FROM delivery_lookup AS k WHERE k.message_id = m.id AND k.attempt = m.attempts)
    ORDER BY m.id LIMIT %s
    ON CONFLICT (message_id) DO UPDATE
    SET attempt = excluded.attempt, tries = 0, due_at = excluded.due_at, last_at = NULL,
        result = '', detail = ''
"""

_CLAIM = """
    UPDATE delivery_lookup AS l
    SET tries = l.tries + 1,
        due_at = statement_timestamp() + (%(again)s::int[])[least(l.tries + 1, %(most)s)]
                 * interval '1 second'
    WHERE l.message_id IN (
        SELECT k.message_id FROM delivery_lookup AS k
        JOIN delivery_message AS m ON m.id = k.message_id
        JOIN unnest(%(providers)s::bigint[], %(routes)s::text[]) AS a (provider_id, route)
          ON a.provider_id = m.provider_id AND a.route = split_part(m.route, '+', 1)
        WHERE m.state = 'unknown' AND m.attempts = k.attempt
              AND k.due_at <= statement_timestamp() AND k.tries <= %(most)s
        ORDER BY k.due_at, k.message_id LIMIT %(limit)s FOR UPDATE OF k SKIP LOCKED)
    RETURNING l.*
"""

# One that was not looked up after all has its try back.
_RECORD = """
    UPDATE delivery_lookup AS l
    SET result = CASE WHEN r.asked THEN r.result ELSE l.result END,
        detail = CASE WHEN r.asked THEN r.detail ELSE l.detail END,
        last_at = CASE WHEN r.asked THEN statement_timestamp() ELSE l.last_at END,
        tries = l.tries - r.spared::int,
        due_at = CASE WHEN r.spared THEN statement_timestamp() + r.wait * interval '1 second'
                      ELSE l.due_at END
    FROM unnest(%s::uuid[], %s::int[], %s::text[], %s::text[], %s::bool[], %s::bool[],
                %s::float8[]) AS r (message_id, tries, result, detail, asked, spared, wait)
    WHERE l.message_id = r.message_id AND l.tries = r.tries
"""


@dataclass(frozen=True, slots=True)
class _Finding:
    """What came of one search. `spared`: it does not count as one, and may be made again in
    `wait` seconds."""

    look_up: LookUp
    result: LookUp.Result = LookUp.Result.NOT_YET
    feedback: Sequence[Feedback] = ()
    detail: str = ""
    spared: bool = False
    wait: float = 0.0


def run_look_ups(accounts: Sequence[Account], *, deadline: float) -> bool:
    """Look for what is due until `deadline` (by `time.monotonic`), oldest first; True if there may
    be more. The number of queries of a batch does not depend on its size."""
    able = [account for account in accounts if account.source.look_up is not None]
    routes = {account.provider.pk: route for account in able if (route := _route(account))}
    if not routes:
        return False
    _plan(routes)
    while time.monotonic() < deadline:
        found = _search(able, routes, deadline)
        if not found:
            return False
    return True


def _route(account: Account) -> str:
    try:
        return account.backend
    except RouteError:
        return ""


def _plan(routes: dict[int, str]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_PLAN, [FIRST_AFTER, list(routes), list(routes.values()), _AT_ONCE])


def _search(accounts: Sequence[Account], routes: dict[int, str], deadline: float) -> int:
    look_ups = _claim(routes)
    messages = _messages(look_ups)
    findings: list[_Finding] = []
    for account in accounts:
        mine = [
            (look_up, message)
            for look_up in look_ups
            if (message := messages[look_up.pk]).provider_id == account.provider.pk
        ]
        findings += _search_at(account, mine, deadline)
    apply_feedback(
        [replace(told, known_at=told.at) for finding in findings for told in finding.feedback]
    )
    _record(findings)
    return len(look_ups)


def _claim(routes: dict[int, str]) -> list[LookUp]:
    parameters = {
        "again": [*AGAIN_AFTER, AGAIN_AFTER[-1]],
        "most": len(AGAIN_AFTER),
        "providers": list(routes),
        "routes": list(routes.values()),
        "limit": BATCH,
    }
    return list(LookUp.objects.raw(_CLAIM, parameters))


def _messages(look_ups: Sequence[LookUp]) -> dict[UUID, Message]:
    return Message.objects.defer("context").in_bulk([look_up.pk for look_up in look_ups])


def _search_at(
    account: Account, wanted: Sequence[tuple[LookUp, Message]], deadline: float
) -> list[_Finding]:
    """Nothing is asked of it any more in this batch once it did not tell."""
    if not wanted:
        return []
    findings: list[_Finding] = []
    try:
        with desk_of(account) as desk:
            for look_up, message in wanted:
                if time.monotonic() >= deadline:
                    break
                findings.append(_look(account, desk, look_up, message))
                if findings[-1].spared:
                    break
    except RouteError as error:
        findings.append(_not_told(wanted[0][0], str(error), wait=None))
    wait = findings[-1].wait if findings else 0.0
    left = [look_up for look_up, _ in wanted[len(findings) :]]
    return findings + [_Finding(look_up, spared=True, wait=wait) for look_up in left]


def _look(account: Account, desk: Desk, look_up: LookUp, message: Message) -> _Finding:
    assert account.source.look_up is not None
    try:
        feedback = account.source.look_up(desk, message)
    except NotAllowed as error:
        # It will not change by itself: it counts, so that it ends.
        return _Finding(look_up, LookUp.Result.NOT_TOLD, detail=str(error))
    except NotTold as error:
        return _not_told(look_up, str(error), wait=error.wait)
    except Exception as error:
        if is_outage(error):
            raise
        # An answer in a shape nobody has thought of must not keep the others from being found.
        logger.exception("look-up failed", extra={"message_id": str(message.pk)})
        return _Finding(look_up, LookUp.Result.NOT_TOLD, detail=f"failed: {type(error).__name__}")
    result = LookUp.Result.FOUND if feedback else LookUp.Result.NOT_FOUND
    return _Finding(look_up, result, feedback)


def _not_told(look_up: LookUp, why: str, *, wait: float | None) -> _Finding:
    pause = min(max(wait or FIRST_AFTER, _LEAST_PAUSE), _LONGEST_PAUSE)
    result = LookUp.Result.NOT_TOLD
    return _Finding(look_up, result, detail=why, spared=True, wait=pause)


def _record(findings: Sequence[_Finding]) -> None:
    if not findings:
        return
    columns = (
        [finding.look_up.pk for finding in findings],
        [finding.look_up.tries for finding in findings],
        [str(finding.result) for finding in findings],
        [finding.detail[:200] for finding in findings],
        [finding.result != LookUp.Result.NOT_YET for finding in findings],
        [finding.spared for finding in findings],
        [finding.wait for finding in findings],
    )
    with connection.cursor() as cursor:
        cursor.execute(_RECORD, columns)

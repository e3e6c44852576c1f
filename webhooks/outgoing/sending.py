"""The outgoing lane: many calls at a time, none of which waits for another endpoint's.

Threads call and know nothing of the database; the drain's own thread claims and records.
"""

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from django.conf import settings

from common.outages import insist
from webhooks.exchange import Answer, exchange
from webhooks.guard import Denied, Unreachable
from webhooks.models import OutgoingEndpoint
from webhooks.outgoing.secrets import SecretLost, decrypt
from webhooks.outgoing.signing import signed_headers
from webhooks.outgoing.transitions import (
    Claimed,
    claim,
    ready_endpoints,
    release,
    settle,
    switch_off,
    withhold,
)
from webhooks.outgoing.verdicts import Verdict, judge
from webhooks.turns import Lease, turn

logger = logging.getLogger(__name__)

CALL_SECONDS = 15.0
_MOST_ANSWER_BYTES = 4_096

# Calls at a time: in all, to one endpoint, and to one that failed the last time. The last slots
# are for endpoints with no call yet, so that slow ones cannot have all.
SLOTS = 32
_RESERVED = 8
_EACH = 8

TURN = "outgoing"
# Made longer again and again while the drain lives.
_TURN_SECONDS = 15.0

# How long the drain waits for answers before it looks for new work.
_LOOK_SECONDS = 0.2

UNREADABLE = "Its secret cannot be read: SECRET_KEY has changed. Rotate the secret."


@dataclass(slots=True)
class Flight:
    """The calls under way, and which endpoint had its turn last."""

    pool: ThreadPoolExecutor
    calls: "dict[Future[Verdict], Claimed]" = field(default_factory=dict)
    turns: dict[int, float] = field(default_factory=dict)

    @property
    def by_endpoint(self) -> Counter[int]:
        """How many calls each endpoint has."""
        return Counter(claimed.endpoint_id for claimed in self.calls.values())


def drain_deliveries(*, budget: float) -> bool:
    """Deliver what is due for about `budget` seconds; True if there may be more.

    One drain at a time: it calls many endpoints at once, and workers that it does not need are
    free for mail. It ends with its last call, twice `CALL_SECONDS` after the budget at the latest.
    One that died is waited for `_TURN_SECONDS`.
    """
    with turn(TURN, seconds=min(_TURN_SECONDS, settings.LEASE_SECONDS)) as lease:
        if lease is None:
            return False
        with ThreadPoolExecutor(SLOTS, thread_name_prefix="outgoing") as pool:
            return _fly(Flight(pool), lease, time.monotonic() + budget)


def _fly(flight: Flight, lease: Lease, end: float) -> bool:
    # Whoever has lost the turn ends what is under way, and calls nobody any more.
    while time.monotonic() < end and insist(lease.keep):
        _start(flight)
        if not flight.calls:
            return False
        _land(flight)
    # While the last answers are waited for, those who are quick are not made to wait as well.
    slow = set(flight.by_endpoint)
    while (
        not slow.isdisjoint(flight.by_endpoint)
        and time.monotonic() < end + CALL_SECONDS
        and insist(lease.keep)
    ):
        _start(flight, without=slow)
        _land(flight)
    while flight.calls:
        _land(flight)
    return True


def _start(flight: Flight, *, without: Collection[int] = ()) -> None:
    """Claim as much as there is room for, and call."""
    if len(flight.calls) >= SLOTS:
        return
    endpoints = {e.pk: e for e in insist(ready_endpoints) if e.pk not in without}
    rooms = rooms_for(list(endpoints.values()), flight)
    claimed = insist(lambda: claim(rooms))
    silent = [item for item in claimed if item.do_not_share]
    withhold(silent)
    for endpoint_id in sorted({item.endpoint_id for item in claimed}):
        flight.turns[endpoint_id] = time.monotonic()
        mine = [c for c in claimed if c.endpoint_id == endpoint_id and not c.do_not_share]
        _call_all(flight, endpoints[endpoint_id], mine)


def rooms_for(endpoints: Iterable[OutgoingEndpoint], flight: Flight) -> dict[int, int]:
    """How many more calls each endpoint may have: one to everybody whose turn it is, then a
    second, and so on."""
    waiting = sorted(endpoints, key=lambda e: (flight.turns.get(e.pk, 0.0), e.pk))
    busy, rooms = flight.by_endpoint, Counter[int]()
    free = SLOTS - len(flight.calls)
    for number in range(_EACH):
        for endpoint in waiting:
            has = busy[endpoint.pk] + rooms[endpoint.pk]
            most = 1 if endpoint.failures else _EACH
            if has > number or has >= most or free <= (_RESERVED if has else 0):
                continue
            rooms[endpoint.pk] += 1
            free -= 1
    return dict(rooms)


def _call_all(flight: Flight, endpoint: OutgoingEndpoint, claimed: Sequence[Claimed]) -> None:
    try:
        secrets = _secrets_of(endpoint)
    except SecretLost:
        switch_off([endpoint.pk], UNREADABLE)
        release(claimed)
        return
    for item in claimed:
        flight.calls[flight.pool.submit(_call, endpoint.url, item, secrets)] = item


def _secrets_of(endpoint: OutgoingEndpoint) -> list[str]:
    """The present secret, and the one before it while its time lasts."""
    tokens = [endpoint.secret]
    if endpoint.signs_twice:
        tokens.append(endpoint.previous_secret)
    return [decrypt(token) for token in tokens]


def _call(url: str, claimed: Claimed, secrets: Sequence[str]) -> Verdict:
    """One attempt. In a thread of its own: no database here."""
    body = claimed.body.encode()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "emailauto",
        **signed_headers(claimed.event_id, body, at=int(time.time()), secrets=secrets),
    }
    outcome: Answer | Denied | Unreachable
    try:
        outcome = exchange(
            "POST",
            url,
            seconds=CALL_SECONDS,
            most_bytes=_MOST_ANSWER_BYTES,
            body=body,
            headers=headers,
        )
    except (Denied, Unreachable) as failure:
        outcome = failure
    except Exception as error:
        # The end of the lane: what we did not think of is this delivery's failure, not the drain's.
        logger.exception("outgoing call failed", extra={"delivery": claimed.id})
        outcome = Unreachable(type(error).__name__)
    return judge(claimed.attempts + 1, outcome)


def _land(flight: Flight) -> None:
    """Record the answers that are there, waiting for the first a moment."""
    done, _ = wait(flight.calls, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED)
    results = [(flight.calls.pop(future), future.result()) for future in done]
    # What was told is recorded also across a restart of the database, or it would be told again.
    insist(lambda: settle(results))

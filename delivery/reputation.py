"""The reputation breaker: when too much of what was sent comes back, what is at fault is slowed
down, then stopped.

Blame goes to the narrowest scope that explains it: a campaign; else a stream of a sending domain at
one mailbox provider; else that stream everywhere. What has been blamed is not counted again further
up. A rate counts with its lower bound at 95 % (Wilson), so that one complaint of two hundred stops
nobody. The thresholds are those from which Gmail, Yahoo and Amazon SES review or pause senders;
those about deferrals, blocks and unsubscribes are ours.
"""

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum

from django.db import connection, transaction

from common.postgres import database_time
from delivery import warmup
from delivery.models import Pardon, Switch
from delivery.rates import at_least
from delivery.services import resume_sending
from delivery.states import Reason
from delivery.switches import Scope
from delivery.tallies import Cell, Counts, counted, roll_up

logger = logging.getLogger(__name__)

_EVERY_SECONDS = 30.0
_looked_at = float("-inf")

FIRST_PAUSE = timedelta(hours=1)
LONGEST_PAUSE = timedelta(hours=24)
_LEAST_PER_HOUR = 10


class Level(IntEnum):
    """What has to be done."""

    NOTHING = 0
    SLOW = 1
    STOP = 2


@dataclass(frozen=True, slots=True)
class Signal:
    """One way in which mail comes back, and how much of it is too much.

    `cases` and `of` name fields of `Counts`. Below `enough` cases nothing can be told, unless
    there were `enough_of` mails. Without `of`, cases are counted as they are.
    """

    words: str
    cases: str
    of: str
    slow: float
    stop: float
    enough: int = 1
    enough_of: float = float("inf")
    passes: bool = False
    """It is the receiver's mood: worth another try later, without anybody's doing."""

    def level(self, counts: Counts) -> Level:
        """Pure."""
        cases, of = getattr(counts, self.cases), getattr(counts, self.of) if self.of else 0
        if cases < self.enough and of < self.enough_of:
            return Level.NOTHING
        # What came back within the window may have been sent before it.
        rate = at_least(cases, max(cases, of)) if self.of else cases
        return Level.STOP if rate >= self.stop else Level(rate >= self.slow)

    def in_words(self, counts: Counts) -> str:
        """What an operator reads."""
        of = f" of {getattr(counts, self.of)}" if self.of else ""
        return f"{getattr(counts, self.cases)}{of} {self.words}"


_NEVER = float("inf")

BOUNCES = Signal("bounced in 24 h", "bounced", "sent_day", 0.02, 0.05, enough=25, enough_of=500)
COMPLAINTS = Signal("called spam in 24 h", "complained", "heard_day", 0.001, 0.003, enough=5)
LASTING_COMPLAINTS = Signal(
    "called spam in 7 days", "complained_week", "heard_week", 0.0008, 0.001, enough=5
)
UNSUBSCRIBES = Signal("unsubscribed in 24 h", "unsubscribed", "sent_day", 0.02, _NEVER, enough=10)
DEFERRALS = Signal(
    "put off in an hour", "throttled", "sent_hour", 0.10, 0.25, enough=10, passes=True
)
BLOCKS = Signal(
    "refused as spam or by policy in an hour",
    "blocked",
    "sent_hour",
    slow=0.02,
    stop=0.05,
    enough=5,
    passes=True,
)
AUTH_FAILURES = Signal("refused for SPF, DKIM or DMARC in 10 min", "unauthenticated", "", 3, 10)
DOUBTS = Signal("of unknown fate in 24 h", "unknown", "sent_day", _NEVER, 0.01, enough=10)

SIGNALS: Mapping[str, tuple[Signal, ...]] = {
    Switch.Target.CAMPAIGN: (BOUNCES, COMPLAINTS, LASTING_COMPLAINTS, UNSUBSCRIBES),
    Switch.Target.MAILBOXES: (BOUNCES, COMPLAINTS, LASTING_COMPLAINTS, DEFERRALS, BLOCKS),
    Switch.Target.STREAM: (BOUNCES, COMPLAINTS, LASTING_COMPLAINTS, BLOCKS),
    Switch.Target.DOMAIN: (AUTH_FAILURES,),
    Switch.Target.PROVIDER: (DOUBTS,),
}
"""What each scope is judged by, the narrowest first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a scope."""

    level: Level
    words: str
    per_hour: int
    """Half of what it has been sending lately, for a slow-down."""
    passes: bool


def finding(target: str, counts: Counts) -> Finding | None:
    """What is wrong with a scope that has these counts, or None. Pure."""
    levels = {signal: signal.level(counts) for signal in SIGNALS[target]}
    worst = max(levels.values())
    if worst == Level.NOTHING:
        return None
    at_fault = [signal for signal, level in levels.items() if level == worst]
    lately = max(counts.sent_hour, counts.sent_day // 24)
    return Finding(
        worst,
        "; ".join(signal.in_words(counts) for signal in at_fault),
        max(_LEAST_PER_HOUR, lately // 2),
        all(signal.passes for signal in at_fault),
    )


def findings(
    counts: Mapping[Scope, Mapping[Cell, Counts]], stopped: Iterable[Scope]
) -> dict[Scope, Finding]:
    """What is at fault; `stopped` is known to be. Pure."""
    found: dict[Scope, Finding] = {}
    blamed = set(stopped)
    for target in SIGNALS:
        for scope, cells in counts.items():
            if scope[0] != target:
                continue
            total = sum(
                (c for cell, c in cells.items() if not _blamed(scope, cell, blamed)), Counts()
            )
            if (fault := finding(target, total)) is not None:
                found[scope] = fault
        # Only what stops takes its share along: what is slowed down still harms the whole.
        blamed |= {scope for scope, fault in found.items() if fault.level == Level.STOP}
    return found


def _blamed(scope: Scope, cell: Cell, blamed: set[Scope]) -> bool:
    """Whether a narrower scope has been blamed for this part already."""
    target, key = scope
    campaign, mailboxes = cell
    narrower: set[Scope] = set()
    if target in (Switch.Target.MAILBOXES, Switch.Target.STREAM):
        narrower.add((Switch.Target.CAMPAIGN, campaign))
    if target == Switch.Target.STREAM:
        narrower.add((Switch.Target.MAILBOXES, f"{key}:{mailboxes}"))
    return not narrower.isdisjoint(blamed)


@transaction.atomic
def judge() -> list[Switch]:
    """Slow down or stop what is at fault, let go what is no longer; returns the switches that are
    new or graver than before. Three queries while nothing is.

    One at a time, and nothing at all while somebody else does it: what two had read would be acted
    on twice, so that a warm-up went back four days.
    """
    if not _is_mine():
        return []
    switches = {(switch.target, switch.key): switch for switch in Switch.objects.all()}
    stopped = {scope for scope, switch in switches.items() if switch.per_hour is None}
    found = findings(counted(), stopped)
    _let_go(switches, found)
    changed = [
        scope
        for scope, fault in found.items()
        if scope not in stopped and (scope not in switches or fault.level == Level.STOP)
    ]
    enforced = (_enforce(scope, found[scope]) for scope in changed)
    return [switch for switch in enforced if switch is not None]


def _is_mine() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtext('delivery.reputation'))")
        (is_mine,) = cursor.fetchone()
    return bool(is_mine)


# People may have thrown the switch since it was read: theirs stands, and so does a stop.
_ENFORCE = """
    INSERT INTO delivery_switch AS s (target, key, reason, note, per_hour, until)
    VALUES (%s, %s, 'reputation', %s, %s, statement_timestamp() + %s * interval '1 second')
    ON CONFLICT (target, key) DO UPDATE
    SET note = excluded.note, per_hour = excluded.per_hour, until = excluded.until
    WHERE s.reason = 'reputation' AND s.per_hour IS NOT NULL
    RETURNING id
"""


def _enforce(scope: Scope, fault: Finding) -> Switch | None:
    """The switch as it is thrown now; None where somebody else's stands."""
    target, key = scope
    stops = fault.level == Level.STOP
    per_hour = None if stops else fault.per_hour
    lasts = _pause(scope) if stops and fault.passes else None
    with connection.cursor() as cursor:
        cursor.execute(_ENFORCE, [target, key, fault.words[:200], per_hour, _seconds(lasts)])
        row = cursor.fetchone()
    if row is None:
        return None
    logger.warning("reputation at risk", extra={"target": target, "key": key, "stops": stops})
    return Switch.objects.get(pk=row[0])


def _seconds(lasts: timedelta | None) -> float | None:
    return None if lasts is None else lasts.total_seconds()


def _pause(scope: Scope) -> timedelta:
    """Longer each time it comes to the same within a day."""
    target, key = scope
    since = database_time() - LONGEST_PAUSE - timedelta(hours=1)
    pardon = Pardon.objects.filter(target=target, key=key, at__gt=since).first()
    pauses = pardon.pauses if pardon is not None else 0
    longer: timedelta = FIRST_PAUSE * 2 ** min(pauses, 10)
    return min(longer, LONGEST_PAUSE)


def _let_go(switches: Mapping[Scope, Switch], found: Mapping[Scope, Finding]) -> None:
    """Lift slow-downs and stops for doubts whose cause is gone, and stops whose pause is over."""
    now = database_time() if any(switch.until for switch in switches.values()) else None
    for scope, switch in switches.items():
        if switch.reason != Reason.REPUTATION:
            continue
        # Its doubts are counted as long as they are open, however old: with them gone there is
        # nothing to look at.
        is_of_doubts = scope[0] == Switch.Target.PROVIDER
        is_better = scope not in found and (switch.per_hour is not None or is_of_doubts)
        is_over = now is not None and switch.until is not None and switch.until <= now
        if not (is_better or is_over) or not _is_as_read(switch):
            continue
        if is_better:
            resume_sending(*scope, pardons=False)
        else:
            _resume_carefully(*scope)


def _is_as_read(switch: Switch) -> bool:
    """Whether it still stands; locked, so that it does until the end of the transaction."""
    same = Switch.objects.filter(
        pk=switch.pk, reason=switch.reason, per_hour=switch.per_hour, until=switch.until
    )
    return bool(same.select_for_update().values_list("pk", flat=True))


def _resume_carefully(target: str, key: str) -> None:
    resume_sending(target, key, by_itself=True)
    if target == Switch.Target.MAILBOXES:
        # A domain may be an address in brackets, with colons of its own.
        way, _, mailboxes = key.rpartition(":")
        warmup.step_back(way.partition(":")[2], mailboxes)


def judge_now_and_then() -> None:
    """For the sweep, which comes far more often than rates change."""
    global _looked_at
    if time.monotonic() - _looked_at >= _EVERY_SECONDS:
        _looked_at = time.monotonic()
        roll_up()
        judge()

"""Providers that are down are left alone, so that an outage costs five attempts and not a million.

A provider's circuit opens after `FAILURES` hand-overs in a row that failed for reasons of its own,
or at once when it says that the account or the key is at fault. It also opens after `REFUSALS`
mails in a row that were refused for good for no fault of their addresses: what a provider suddenly
refuses of everybody is no single mail's fault, and the whole backlog would be failed. In a row
means as they are noted: the answers of several workers mix, and one mail that is taken ends it.

While it is open its mail waits, or takes a stand-in's way. Then one message tries; if it is
answered the circuit closes, else it stays open for twice as long. After a flood of refusals only
one that is not refused closes it.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models.functions import Now

from common.postgres import database_time
from delivery.models import Circuit, Provider
from delivery.turns import REFUSALS, Handed
from delivery.verdicts import Blame, Outcome, Verdict

FAILURES = 5
FIRST_PAUSE = 30.0
LONGEST_PAUSE = 600.0
_PROBE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class State:
    """What is known of a provider. Moments are of the database's clock."""

    failures: int = 0
    refusals: int = 0
    trips: int = 0
    open_until: datetime | None = None
    slow_until: datetime | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """A verdict, and whether its message was to try whether the provider is back."""

    verdict: Verdict
    is_probe: bool = False


def after(state: State, answered: Iterable[Answered], now: datetime) -> State:
    """The state once these hand-overs, in this order, have been answered. Pure."""
    for one in answered:
        state = _after_one(state, one, now)
    return state


def _after_one(state: State, answered: Answered, now: datetime) -> State:
    verdict = answered.verdict
    if verdict.blame == Blame.PACE:
        # It answers, so it is not down; the pause it asks for is kept.
        until = now + timedelta(seconds=verdict.retry_after or 1.0)
        longest = max(until, state.slow_until or until)
        return State(slow_until=longest, reason=verdict.detail)
    if verdict.is_plain_refusal:
        return _refused(state, answered, now)
    if _is_fine(verdict):
        return State(slow_until=state.slow_until)
    failed = replace(state, failures=state.failures + 1, reason=verdict.detail)
    if state.open_until is not None and not answered.is_probe:
        # It was under way when the circuit opened: the same outage, not another one.
        return failed
    says_so = verdict.blame == Blame.ROUTE and verdict.retry_after is not None
    if says_so or answered.is_probe or failed.failures >= FAILURES:
        return _opened(failed, verdict.retry_after or 0.0, now)
    return failed


def _refused(state: State, answered: Answered, now: datetime) -> State:
    refusals = state.refusals + 1
    if refusals < REFUSALS:
        # It answers, so it is not down.
        return State(refusals=refusals, slow_until=state.slow_until)
    failed = replace(state, refusals=refusals, reason=answered.verdict.detail)
    if state.open_until is not None and not answered.is_probe:
        return failed
    return _opened(failed, 0.0, now)


def _opened(state: State, at_least: float, now: datetime) -> State:
    pause = max(at_least, min(FIRST_PAUSE * 2 ** min(state.trips, 10), LONGEST_PAUSE))
    return replace(state, trips=state.trips + 1, open_until=now + timedelta(seconds=pause))


def note(handed: Sequence[Handed]) -> bool:
    """Remember how the providers answered; True if that changed anything. No query while all is
    well."""
    has_changed = False
    answers: dict[Provider, list[Answered]] = defaultdict(list)
    for item in handed:
        if item.is_echo:
            continue
        answered = Answered(item.verdict, item.departed.is_probe)
        answers[item.departed.outbound.provider].append(answered)
    for provider, said in answers.items():
        if _is_clean(provider) and all(_is_nothing(one.verdict) for one in said):
            continue
        _write(provider, said)
        has_changed = True
    return has_changed


def _is_clean(provider: Provider) -> bool:
    health = provider.health
    return not health.failures and not health.refusals and health.open_until is None


def _is_fine(verdict: Verdict) -> bool:
    return not verdict.stops_provider and verdict.outcome != Outcome.UNKNOWN


def _is_nothing(verdict: Verdict) -> bool:
    return _is_fine(verdict) and not verdict.is_plain_refusal


def _write(provider: Provider, said: Sequence[Answered]) -> None:
    with transaction.atomic():
        Circuit.objects.bulk_create([Circuit(provider=provider)], ignore_conflicts=True)
        row = Circuit.objects.select_for_update().get(provider=provider)
        before = State(
            row.failures, row.refusals, row.trips, row.open_until, row.slow_until, row.reason
        )
        state = after(before, said, database_time())
        if state != before:
            Circuit.objects.filter(pk=row.pk).update(
                failures=state.failures,
                refusals=state.refusals,
                trips=state.trips,
                open_until=state.open_until,
                slow_until=state.slow_until,
                reason=state.reason[:300],
                changed_at=Now(),
            )


def claim_probes(providers: Sequence[int]) -> set[int]:
    """Of these providers, whose circuits have been open long enough, those that the caller's one
    message may try; the others are being tried by somebody else. If the trial is never answered,
    the next may be made in a minute."""
    if not providers:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM_PROBES, [_PROBE_SECONDS, sorted(providers)])
        return {provider for (provider,) in cursor.fetchall()}


_CLAIM_PROBES = """
    UPDATE delivery_circuit
    SET open_until = statement_timestamp() + %s * interval '1 second'
    WHERE provider_id = ANY(%s) AND open_until <= statement_timestamp()
    RETURNING provider_id
"""


def close(provider: Provider) -> None:
    """What an operator says once the cause is put right: try again at once."""
    Circuit.objects.filter(provider=provider).update(
        failures=0,
        refusals=0,
        trips=0,
        open_until=None,
        slow_until=None,
        reason="",
        changed_at=Now(),
    )

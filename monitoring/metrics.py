"""What Prometheus reads: numbers out of the database at the time of the scrape, so that every
process tells the same.

A scrape has to stay cheap over millions of rows: what is counted has a partial index and is
counted up to `MOST`. What has none (processed events, sent messages) is not counted at all.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from django.db import connection
from django.db.models import F, QuerySet
from django.db.models.functions import Extract, Now
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from common.clock import now
from delivery.states import MessageState
from events.models import Consumer, Event, Rejection
from events.states import EventState, RefusalCode
from monitoring import waiting
from monitoring.services import REPAIRS, SWEEP, idle_seconds
from monitoring.waiting import MOST, Waiting

_MOST_CONSUMERS = 1_000

# By the partial index that finds them: the count of one state alone would look at all those of
# its neighbour.
_COUNTED_TOGETHER = [
    [MessageState.QUEUED, MessageState.RETRY],
    [MessageState.CLAIMED, MessageState.DISPATCHING],
    [MessageState.HELD],
    [MessageState.UNKNOWN],
    [MessageState.FAILED],
    [MessageState.DEAD],
]
_COUNT_MESSAGES = """
    SELECT state, count(*)
    FROM (SELECT state FROM delivery_message WHERE state = ANY(%s) LIMIT %s) AS found
    GROUP BY state
"""
_PARTITION = ("broker", "queue", "partition")


def exposition() -> bytes:
    """Every metric in Prometheus' text format. About thirty queries, whatever there is."""
    return generate_latest(_registry)


class _Numbers(Collector):
    """Asks the database each time."""

    def collect(self) -> Iterator[Metric]:
        yield from _events()
        yield from _consumers()
        yield _messages()
        yield from _lanes()
        yield from _feedback()
        yield from _lists()
        yield from _mailbox()
        yield _since(
            "emailauto_worker_idle_seconds",
            "Since the last sweep of any worker; NaN: there was none",
            SWEEP,
        )
        yield _since(
            "emailauto_repairs_idle_seconds",
            "Since the last sweep of which every step succeeded; NaN: there was none",
            REPAIRS,
        )


_registry = CollectorRegistry()
_registry.register(_Numbers())


def _since(name: str, words: str, heartbeat: str) -> Metric:
    idle = idle_seconds(heartbeat)
    return GaugeMetricFamily(name, words, value=float("nan") if idle is None else idle)


def _events() -> Iterator[Metric]:
    unfinished = (EventState.PENDING, EventState.DEAD)
    yield _by(
        "emailauto_events",
        f"Events that wait for the engine, and dead letters; counted up to {MOST}",
        "state",
        [(state.value, Event.objects.filter(state=state)) for state in unfinished],
    )
    yield GaugeMetricFamily(
        "emailauto_events_oldest_pending_seconds",
        "For how long the event that has been due longest waits; 0: none does",
        value=_longest_wait(),
    )
    yield _by(
        "emailauto_events_refused",
        f"Events that were not let in and are remembered; counted up to {MOST}",
        "code",
        [(code.value, Rejection.objects.filter(code=code)) for code in RefusalCode],
    )


def _longest_wait() -> float:
    due = Event.objects.filter(state=EventState.PENDING).order_by("due_at", "pk")
    age = due.values_list(Extract(Now() - F("due_at"), "epoch"), flat=True).first()
    return max(float(age or 0), 0.0)  # one that is tried again later is due in the future


def _consumers() -> Iterator[Metric]:
    age = Extract(Now() - F("seen_at"), "epoch")
    rows = list(
        Consumer.objects.order_by(*_PARTITION).values_list(
            *_PARTITION, "lag", age, "recorded", "dead_lettered"
        )[:_MOST_CONSUMERS]
    )
    families: tuple[GaugeMetricFamily | CounterMetricFamily, ...] = (
        GaugeMetricFamily(
            "emailauto_consumer_lag", "Messages that wait at the broker", labels=_PARTITION
        ),
        GaugeMetricFamily(
            "emailauto_consumer_seen_seconds", "Since a consumer last reported", labels=_PARTITION
        ),
        CounterMetricFamily(
            "emailauto_consumer_recorded", "Events stored from a broker", labels=_PARTITION
        ),
        CounterMetricFamily(
            "emailauto_consumer_dead_lettered",
            "Messages put into the dead-letter queue",
            labels=_PARTITION,
        ),
    )
    for number, family in enumerate(families, start=len(_PARTITION)):
        _fill(family, rows, number)
    yield from families


def _messages() -> Metric:
    family = GaugeMetricFamily(
        "emailauto_messages",
        f"Messages that are not done with; counted up to {MOST}, queued and retry together",
        labels=["state"],
    )
    for states in _COUNTED_TOGETHER:
        counts = _count_messages(states)
        for state in states:
            family.add_metric([state.value], counts.get(state.value, 0))
    return family


def _count_messages(states: Sequence[MessageState]) -> dict[str, int]:
    with connection.cursor() as cursor:
        cursor.execute(_COUNT_MESSAGES, [[state.value for state in states], MOST])
        return dict(cursor.fetchall())


def _lanes() -> Iterator[Metric]:
    found = waiting.lanes()
    yield _counts(
        "emailauto_lane_due",
        f"What is due in a lane, waiting or in a worker's hands; counted up to {MOST}",
        "lane",
        found,
    )
    yield _seconds(
        "emailauto_lane_oldest_due_seconds",
        "For how long what has been due longest in a lane waits; 0: nothing is",
        "lane",
        found,
    )


def _feedback() -> Iterator[Metric]:
    receipts, deliveries = waiting.receipts(), waiting.outgoing_deliveries()
    answers = waiting.answers()
    yield _counts(
        "emailauto_receipts",
        f"What providers told and is not applied; counted up to {MOST}",
        "state",
        receipts,
    )
    yield GaugeMetricFamily(
        "emailauto_receipts_oldest_due_seconds",
        "For how long the receipt that has been due longest waits; 0: none does",
        value=max(found.seconds for found in receipts.values()),
    )
    yield GaugeMetricFamily(
        "emailauto_answers",
        f"What servers said at the hand-over and is not acted on; counted up to {MOST}",
        value=answers.count,
    )
    yield GaugeMetricFamily(
        "emailauto_answers_oldest_seconds",
        "For how long the first of these answers waits; 0: none does",
        value=answers.seconds,
    )
    yield _counts(
        "emailauto_outgoing_deliveries",
        f"News for outgoing webhooks that are not told; counted up to {MOST}",
        "state",
        deliveries,
    )
    yield GaugeMetricFamily(
        "emailauto_outgoing_oldest_due_seconds",
        "For how long the delivery that has been due longest waits, switched off or not; 0: none",
        value=deliveries["pending"].seconds,
    )


def _lists() -> Iterator[Metric]:
    lists = waiting.lists()
    family = GaugeMetricFamily(
        "emailauto_polls", "Providers' lists by how their latest reading went", labels=["state"]
    )
    for state in ("read", "failing", "never"):
        family.add_metric([state], getattr(lists, state))
    yield family
    yield GaugeMetricFamily(
        "emailauto_polls_oldest_ok_seconds",
        "Since the list was read to its end that waits longest; NaN: none ever was",
        value=float("nan") if lists.oldest is None else lists.oldest,
    )


def _mailbox() -> Iterator[Metric]:
    """Nothing without a bounce mailbox."""
    mailbox = waiting.mailbox()
    if mailbox is None:
        return
    yield GaugeMetricFamily(
        "emailauto_mailbox_failures",
        "Readings of the bounce mailbox that failed in a row",
        value=mailbox.failures,
    )
    age = float("nan")
    if mailbox.last_ok_at is not None:
        age = (now() - mailbox.last_ok_at).total_seconds()
    yield GaugeMetricFamily(
        "emailauto_mailbox_ok_seconds",
        "Since the bounce mailbox was last read and emptied; NaN: it never was",
        value=age,
    )


def _counts(name: str, text: str, label: str, found: Mapping[str, Waiting]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, amount in found.items():
        family.add_metric([value], amount.count)
    return family


def _seconds(name: str, text: str, label: str, found: Mapping[str, Waiting]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, amount in found.items():
        family.add_metric([value], amount.seconds)
    return family


def _fill(
    family: GaugeMetricFamily | CounterMetricFamily, rows: Iterable[Sequence[Any]], number: int
) -> None:
    for row in rows:
        if row[number] is not None:  # a broker that does not say how much waits
            family.add_metric([str(label) for label in row[: len(_PARTITION)]], float(row[number]))


def _by(
    name: str, text: str, label: str, rows: Iterable[tuple[str, QuerySet[Any]]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, found in rows:
        family.add_metric([value], found.order_by()[:MOST].count())
    return family

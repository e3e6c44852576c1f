"""From a broker's queue into the inbox: decode, admit, store, and only then acknowledge.

A message is acknowledged after PostgreSQL has committed it, or after the dead-letter queue has
confirmed it. So a death at any moment makes the broker deliver again, and the inbox knows what it
has by `(source, event_id)`: nothing is lost, and nothing is stored twice.
"""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from itertools import chain, repeat

import msgspec
from django.conf import settings
from django.db import DatabaseError, Error, connection

from common.api import ApiError, decode_json
from common.clock import now
from events.admission import admit
from events.consumers import Connect
from events.consumers.broker import Broker, BrokerError, Delivery, Letter
from events.consumers.letters import dead_letters
from events.consumers.stop import Stop, Stopped
from events.directory import rules
from events.native import MAX_BODY, parse_event
from events.services import submit
from events.states import RefusalCode
from events.wire import Item, Outcome, Problem, Recorded, Refusal, invalid

logger = logging.getLogger(__name__)

_REPORT_SECONDS = 5.0
_RECONNECT_SECONDS = 2.0
_PAUSES = (0.5, 1.0, 2.0, 5.0)
"""Seconds between attempts while the database is away; the last one again and again."""

# SQLSTATE classes: data exception, integrity constraint, program limit.
_ABOUT_DATA = ("22", "23", "54")

_REPORT = """
    INSERT INTO events_consumer AS c (broker, queue, partition, lag, recorded, dead_lettered)
    SELECT %s, %s, r.partition, r.lag, r.recorded, r.dead_lettered
    FROM unnest(%s::int[], %s::bigint[], %s::bigint[], %s::bigint[])
         AS r (partition, lag, recorded, dead_lettered)
    ORDER BY r.partition
    ON CONFLICT (broker, queue, partition) DO UPDATE
    SET lag = COALESCE(excluded.lag, c.lag), recorded = c.recorded + excluded.recorded,
        dead_lettered = c.dead_lettered + excluded.dead_lettered,
        seen_at = statement_timestamp()
"""


class Taken(msgspec.Struct, frozen=True):
    """What became of a batch: how many new events per partition, and what has to be buried."""

    recorded: Counter[int]
    letters: list[Letter]


class Consumption:
    """Reads one queue until it is told to stop. `source` is the namespace of the event ids."""

    def __init__(self, connect: Connect, *, broker: str, source: str, stop: Stop) -> None:
        self._connect = connect
        self._name = broker
        self._source = source
        self._stop = stop
        self._recorded: Counter[int] = Counter()
        self._buried: Counter[int] = Counter()
        self._reported_at = time.monotonic()

    def run(self) -> None:
        """Returns after a stop, with nothing in hand; connects again as often as it takes."""
        while not self._stop.is_requested:
            try:
                with closing(self._connect(self._stop)) as broker:
                    self._read(broker)
            except Stopped:
                break
            except BrokerError as error:
                logger.warning("broker away", extra={"broker": self._name, "error": str(error)})
                self._pause()
        self._report({})

    def _pause(self) -> None:
        with suppress(Stopped):
            self._stop.sleep(_RECONNECT_SECONDS)

    def _read(self, broker: Broker) -> None:
        while not self._stop.is_requested:
            if deliveries := broker.receive():
                self._settle(broker, deliveries)
            if time.monotonic() - self._reported_at >= _REPORT_SECONDS:
                self._report(broker.lags())

    def _settle(self, broker: Broker, deliveries: Sequence[Delivery]) -> None:
        taken = self._taken(broker, deliveries)
        if taken.letters:
            broker.bury(taken.letters)
        broker.acknowledge(deliveries)
        self._recorded += taken.recorded
        self._buried.update(letter.delivery.partition for letter in taken.letters)

    def _taken(self, broker: Broker, deliveries: Sequence[Delivery]) -> Taken:
        for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
            try:
                return take(deliveries, source=self._source)
            except Error as error:  # no part of the batch is acknowledged before all of it is kept
                # The name only: the text may quote what was being stored.
                logger.warning("events not stored yet", extra={"error": type(error).__name__})
                connection.close()
                broker.hold(deliveries, pause)
        raise AssertionError("there is always another attempt")

    def _report(self, lags: Mapping[int, int | None]) -> None:
        """Say how far we are. What cannot be said now is said the next time."""
        self._reported_at = time.monotonic()
        try:
            _write_report(self._name, lags, self._recorded, self._buried)
        except Error:
            connection.close()
        else:
            self._recorded.clear()
            self._buried.clear()


def take(deliveries: Sequence[Delivery], *, source: str) -> Taken:
    """Store what the messages hold; what is not taken comes back as letters.

    Raises `django.db.Error` when the database is away; then the same batch may be given again.
    """
    items = [read_message(delivery.body, source=source) for delivery in deliveries]
    admitted = admit(items, rules.get(None), keeps_refused=True)
    outcomes = list(map(_final, admitted, _submitted(admitted)))
    return Taken(
        Counter(
            delivery.partition
            for delivery, outcome in zip(deliveries, outcomes, strict=True)
            if outcome is Recorded.ACCEPTED
        ),
        dead_letters(
            [
                (delivery, outcome)
                for delivery, outcome in zip(deliveries, outcomes, strict=True)
                if isinstance(outcome, Refusal)
            ]
        ),
    )


def read_message(body: bytes, *, source: str) -> Item:
    """The event in a message, in the native format, or everything that is wrong with it."""
    if len(body) > MAX_BODY:
        return invalid([Problem("", f"is larger than {MAX_BODY} bytes")], source=source)
    try:
        document = decode_json(body)
    except ApiError as error:
        return invalid([Problem("", str(error.detail))], source=source)
    return parse_event(document, source=source, received_at=now())


def _submitted(items: Sequence[Item]) -> list[Outcome]:
    """`submit`; a message that PostgreSQL itself refuses stands alone and not in the way."""
    try:
        return submit(items)
    except DatabaseError as error:
        if not _fault_of_data(error):
            raise
    return [_submitted_alone(item) for item in items]


def _submitted_alone(item: Item) -> Outcome:
    try:
        return submit([item])[0]
    except DatabaseError as error:
        if not (fault := _fault_of_data(error)):
            raise
    problem = Problem("", f"cannot be stored: SQLSTATE {fault}")
    return Refusal(RefusalCode.INVALID, (problem,), item.source, item.event_id, item.type)


def _fault_of_data(error: DatabaseError) -> str:
    """The SQLSTATE, if it says that trying the same again is of no use; else nothing."""
    state = getattr(error.__cause__, "sqlstate", None) or ""
    return state if state.startswith(_ABOUT_DATA) else ""


def _final(item: Item, outcome: Outcome) -> Outcome:
    if outcome is not Recorded.CONFLICT:
        return outcome
    problem = Problem("event_id", "is known with another body")
    return Refusal(RefusalCode.CONFLICT, (problem,), item.source, item.event_id, item.type)


def _write_report(
    broker: str,
    lags: Mapping[int, int | None],
    recorded: Mapping[int, int],
    buried: Mapping[int, int],
) -> None:
    partitions = sorted({*lags, *recorded, *buried})
    if not partitions:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            _REPORT,
            [
                broker,
                settings.EMAILAUTO.queues.marketing_events.name,
                partitions,
                [lags.get(partition) for partition in partitions],
                [recorded.get(partition, 0) for partition in partitions],
                [buried.get(partition, 0) for partition in partitions],
            ],
        )

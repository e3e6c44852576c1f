"""Dead and refused events: replayed, discarded, one by one and by the thousand."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import msgspec
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from common.clock import now, to_milliseconds
from emailauto.config import Compliance, Residency
from events.dead_letters import (
    BATCH,
    Replay,
    discard_dead,
    discard_rejections,
    replay_dead,
    replay_rejections,
)
from events.models import Event, Rejection
from events.services import submit
from events.states import EventState, IgnoredReason, RefusalCode, RejectionState
from events.wire import Problem, Recorded, Refusal
from tests.factories import (
    ContactFactory,
    EventFactory,
    EventTypeFactory,
    event_document,
    event_in,
)

pytestmark = pytest.mark.django_db

STRICT = {"type": "object", "required": ["email"]}


def make_rejection(event_id: str, **fields: Any) -> Rejection:
    """An event of which the producer was told "fine" and that does not fit its schema."""
    values = {
        "source": "shop",
        "event_id": event_id,
        "type": "UserSignedUp",
        "code": RefusalCode.SCHEMA,
        "problems": [{"path": "/email", "message": "is required"}],
        "body": event_document(event_id),
        **fields,
    }
    return Rejection.objects.create(**values)


def dead(**fields: Any) -> Event:
    return EventFactory(state=EventState.DEAD, attempts=5, error="Traceback: boom", **fields)


# Dead events


def test_dead_event_is_replayed_at_once_with_fresh_attempts() -> None:
    event = dead(due_at=now() + timedelta(hours=1), lease_owner="gone", claimed_until=now())
    assert replay_dead([event.pk]) == 1
    assert [found.pk for found in Event.objects.all().due()] == [event.pk]
    event.refresh_from_db()
    assert (event.state, event.attempts, event.error) == (EventState.PENDING, 0, "")


def test_replaying_twice_revives_once() -> None:
    event = dead()
    assert (replay_dead([event.pk]), replay_dead([event.pk])) == (1, 0)


def test_dead_event_is_discarded_with_its_reason_and_keeps_its_traceback() -> None:
    event = dead()
    assert discard_dead([event.pk], "Posted by a test") == 1
    event.refresh_from_db()
    assert (event.state, event.reason, event.note, event.error) == (
        EventState.IGNORED,
        IgnoredReason.DISCARDED,
        "Posted by a test",
        "Traceback: boom",
    )
    assert event.processed_at is not None
    assert replay_dead([event.pk]) == 0


@pytest.mark.parametrize("state", [EventState.PENDING, EventState.PROCESSED, EventState.IGNORED])
def test_event_that_is_not_dead_is_left_alone(state: EventState) -> None:
    event = EventFactory(state=state)
    assert (replay_dead([event.pk]), discard_dead([event.pk], "x")) == (0, 0)
    event.refresh_from_db()
    assert (event.state, event.note) == (state, "")


# Refused events


def test_refused_event_is_let_in_by_todays_rules() -> None:
    EventTypeFactory(schema=STRICT)
    rejection = make_rejection("e1")
    assert replay_rejections([rejection.pk]) == Replay(taken=1, refused=0)
    event = Event.objects.get()
    document = rejection.body
    assert (event.source, event.event_id, event.type, event.user_id, event.payload) == (
        "shop",
        "e1",
        document["event_type"],
        document["user_id"],
        document["payload"],
    )
    assert event.state == EventState.PENDING
    rejection.refresh_from_db()
    assert rejection.state == RejectionState.REPLAYED


def test_event_refused_again_stays_open_with_what_is_wrong_now() -> None:
    EventTypeFactory(schema={"type": "object", "required": ["plan"]})
    rejection = make_rejection("e1")
    assert replay_rejections([rejection.pk]) == Replay(taken=0, refused=1)
    rejection.refresh_from_db()
    assert rejection.state == RejectionState.OPEN
    assert rejection.problems == [{"path": "/plan", "message": "is required"}]
    assert rejection.body == {**event_document("e1"), "timestamp": rejection.body["timestamp"]}
    assert (Event.objects.count(), Rejection.objects.count()) == (0, 1)


def test_schema_changed_a_moment_ago_counts(settings: Any) -> None:
    settings.INTAKE_CACHE_SECONDS = 60
    event_type = EventTypeFactory(schema={"type": "object", "required": ["plan"]})
    rejection = make_rejection("e1")
    assert replay_rejections([rejection.pk]).refused == 1
    event_type.schema = {}
    event_type.save()
    assert replay_rejections([rejection.pk]).taken == 1


def test_body_that_is_no_native_event_stays_open_and_says_so() -> None:
    rejection = make_rejection("e1", body={"type": "track", "messageId": "e1"})
    assert replay_rejections([rejection.pk]) == Replay(taken=0, refused=1)
    rejection.refresh_from_db()
    assert rejection.state == RejectionState.OPEN
    assert {"path": "event_id", "message": "is required"} in rejection.problems


def test_event_that_came_in_meanwhile_is_not_stored_twice() -> None:
    same, other = make_rejection("e1"), make_rejection("e2")
    for rejection in (same, other):
        replay_rejections([rejection.pk])
    Rejection.objects.update(state=RejectionState.OPEN)
    Rejection.objects.filter(pk=other.pk).update(body={**other.body, "payload": {"other": 1}})
    assert replay_rejections([same.pk, other.pk]) == Replay(taken=1, refused=1)
    assert Event.objects.count() == 2
    other.refresh_from_db()
    assert other.problems == [{"path": "event_id", "message": "is known with another body"}]


def test_future_clock_is_judged_by_when_the_event_first_came() -> None:
    arrived = datetime(2026, 3, 1, 12, tzinfo=UTC)
    ahead = to_milliseconds(arrived + timedelta(days=1))
    rejection = make_rejection("e1", body=event_document("e1", timestamp=ahead), first_at=arrived)
    replay_rejections([rejection.pk])
    event = Event.objects.get()
    assert (event.occurred_at, event.stated_at) == (arrived, arrived + timedelta(days=1))


@pytest.mark.parametrize("state", [RejectionState.REPLAYED, RejectionState.DISCARDED])
def test_rejection_that_is_not_open_is_left_alone(state: RejectionState) -> None:
    rejection = make_rejection("e1", state=state)
    assert replay_rejections([rejection.pk]) == Replay(0, 0)
    assert discard_rejections([rejection.pk], "x") == 0
    assert Event.objects.count() == 0


def test_rejection_without_a_body_cannot_be_replayed() -> None:
    rejection = make_rejection("e1", body=None)
    assert replay_rejections([rejection.pk]) == Replay(0, 0)
    rejection.refresh_from_db()
    assert rejection.state == RejectionState.OPEN


def test_rejection_is_discarded_with_its_reason() -> None:
    rejection = make_rejection("e1")
    assert discard_rejections([rejection.pk], "Load test") == 1
    rejection.refresh_from_db()
    assert (rejection.state, rejection.note) == (RejectionState.DISCARDED, "Load test")


@pytest.fixture
def _only_europe(settings: Any) -> None:
    compliance = Compliance(residency=Residency(regions=["eu-*"]))
    settings.EMAILAUTO = msgspec.structs.replace(settings.EMAILAUTO, compliance=compliance)


@pytest.mark.usefixtures("_only_europe")
def test_content_of_a_region_that_may_no_longer_be_held_is_let_go() -> None:
    body = event_document("e1", metadata={"region": "us-east-1"})
    rejection = make_rejection("e1", body=body)
    assert replay_rejections([rejection.pk]) == Replay(taken=0, refused=1)
    rejection.refresh_from_db()
    assert (rejection.body, rejection.type) == (None, "")
    assert rejection.problems[0]["path"] == "metadata.region"


@pytest.mark.usefixtures("_only_europe")
def test_content_of_a_person_of_such_a_region_is_let_go() -> None:
    ContactFactory(user_id="user-e1", region="us-east-1")
    rejection = make_rejection("e1")
    assert replay_rejections([rejection.pk]) == Replay(taken=0, refused=1)
    assert Event.objects.count() == 0
    assert Rejection.objects.exclude(body=None).count() == 0


def test_number_of_queries_is_the_same_for_1_and_50_refused_events() -> None:
    EventTypeFactory(schema=STRICT)
    replay_rejections([make_rejection("warm-up").pk])
    counts = []
    for size in (1, 50):
        ids = [make_rejection(f"{size}-{n}").pk for n in range(size)]
        ids += [make_rejection(f"{size}-{n}-bad", body={}).pk for n in range(size)]
        with CaptureQueriesContext(connection) as queries:
            assert replay_rejections(ids) == Replay(size, size)
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_more_than_a_batch_is_replayed_whole() -> None:
    ids = [make_rejection(f"e{n}").pk for n in range(BATCH + 1)]
    assert replay_rejections(ids) == Replay(taken=BATCH + 1, refused=0)
    assert Event.objects.count() == BATCH + 1


@pytest.mark.django_db(transaction=True)
def test_replayed_by_four_at_once_each_event_is_let_in_by_one_of_them() -> None:
    ids = [make_rejection(f"e{n}").pk for n in range(20)]
    start = threading.Barrier(4)

    def operator(_number: int) -> Replay:
        try:
            start.wait()
            return replay_rejections(ids)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(operator, range(4)))
    assert sum(outcome.taken for outcome in outcomes) == 20
    assert sum(outcome.refused for outcome in outcomes) == 0
    assert Event.objects.count() == 20


@pytest.mark.django_db(transaction=True)
def test_event_discarded_while_it_is_replayed_is_one_of_both() -> None:
    rejection = make_rejection("e1")
    replaying, discarded = threading.Event(), []

    def discard() -> None:
        try:
            replaying.wait()
            discarded.append(discard_rejections([rejection.pk], "x"))
        finally:
            connection.close()

    thread = threading.Thread(target=discard)
    thread.start()
    with transaction.atomic():
        assert replay_rejections([rejection.pk]).taken == 1
        replaying.set()
    thread.join()
    rejection.refresh_from_db()
    assert (rejection.state, discarded) == (RejectionState.REPLAYED, [0])


@pytest.mark.django_db(transaction=True)
def test_replay_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rejection = make_rejection("e1")
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE 'disk full'; END $$; "
            "CREATE TRIGGER refuse BEFORE UPDATE ON events_rejection "
            "FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    try:
        with pytest.raises(Exception, match="disk full"):
            replay_rejections([rejection.pk])
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TRIGGER refuse ON events_rejection; DROP FUNCTION refuse()")
    assert Event.objects.count() == 0


# manage.py replay


def run(*args: str) -> str:
    out = StringIO()
    call_command("replay", *args, stdout=out)
    return out.getvalue()


def test_command_replays_the_dead_events_it_was_asked_for() -> None:
    wanted = dead(type="OrderCompleted", source="shop")
    for other in ({"type": "OrderCompleted"}, {"source": "shop"}):
        dead(**other)
    EventFactory(type="OrderCompleted", source="shop", state=EventState.PROCESSED)
    said = run("--dead", "--type", "OrderCompleted", "--source", "shop")
    assert said == "1 dead events are pending again.\n"
    assert list(Event.objects.filter(state=EventState.PENDING)) == [wanted]


def test_command_replays_those_since_a_moment() -> None:
    dead(received_at=datetime(2026, 1, 1, tzinfo=UTC))
    wanted = dead(received_at=datetime(2026, 2, 1, 12, tzinfo=UTC))
    assert run("--dead", "--since", "2026-02-01T12:00") == "1 dead events are pending again.\n"
    assert list(Event.objects.filter(state=EventState.PENDING)) == [wanted]


def test_command_stops_at_its_limit_and_begins_with_the_oldest() -> None:
    events = [dead() for _ in range(BATCH + 3)]
    run("--dead", "--limit", str(BATCH + 1))
    left = Event.objects.filter(state=EventState.DEAD).order_by("pk")
    assert list(left) == events[BATCH + 1 :]


def test_command_replays_refused_events_of_one_code() -> None:
    make_rejection("e1")
    make_rejection("e2", code=RefusalCode.UNREGISTERED)
    make_rejection("e3", body={})
    said = run("--refused", "--code", "schema")
    assert said == "1 refused events were let in, 1 were refused again.\n"
    assert [event.event_id for event in Event.objects.all()] == ["e1"]


def test_dry_run_counts_by_type_and_changes_nothing() -> None:
    for name in ("A", "B", "B"):
        dead(type=name)
        make_rejection(f"e-{name}-{Rejection.objects.count()}", type=name)
    make_rejection("no body", type="A", body=None)
    for which in ("--dead", "--refused"):
        lines = [line.split() for line in run(which, "--dry-run").splitlines()]
        assert lines == [["2", "B"], ["1", "A"], ["3", "altogether"]]
    assert Event.objects.filter(state=EventState.DEAD).count() == 3
    assert Rejection.objects.filter(state=RejectionState.OPEN).count() == 4


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--dead", "--refused"],
        ["--dead", "--code", "schema"],
        ["--refused", "--code", "nonsense"],
        ["--dead", "--since", "yesterday"],
    ],
)
def test_command_refuses_what_makes_no_sense(args: list[str]) -> None:
    event = dead()
    with pytest.raises(CommandError):
        run(*args)
    event.refresh_from_db()
    assert event.state == EventState.DEAD


def test_posted_again_after_a_replay_it_is_a_duplicate() -> None:
    rejection = make_rejection("e1", body=event_document("e1", timestamp=1_790_000_000_000))
    replay_rejections([rejection.pk])
    again = event_in("e1", source="shop", timestamp=1_790_000_000_000)
    assert submit([again]) == [Recorded.DUPLICATE]


def test_refusal_that_is_repeated_keeps_what_it_holds() -> None:
    document = event_document("e1")
    refused = Refusal(RefusalCode.SCHEMA, (Problem("/a", "is wrong"),), "api", "e1", "T", document)
    submit([refused])
    submit([msgspec.structs.replace(refused, body=None)])
    row = Rejection.objects.get()
    assert (row.body, row.times) == (document, 2)


def test_discarded_refusal_stays_discarded_when_it_comes_again() -> None:
    refused = Refusal(RefusalCode.SCHEMA, (Problem("/a", "is wrong"),), "api", "e1", "T")
    submit([refused])
    discard_rejections([Rejection.objects.get().pk], "known")
    submit([refused])
    row = Rejection.objects.get()
    assert (row.state, row.note, row.times) == ("discarded", "known", 2)


def test_event_let_in_later_counts_from_when_it_first_came() -> None:
    came = now() - timedelta(days=9)
    happened = to_milliseconds(came - timedelta(hours=1))
    refused = Refusal(
        RefusalCode.SCHEMA,
        (Problem("/a", "is wrong"),),
        "api",
        "e1",
        "T",
        event_document("e1", timestamp=happened),
    )
    submit([refused])
    Rejection.objects.update(first_at=came)
    assert replay_rejections([Rejection.objects.get().pk]).taken == 1
    assert Event.objects.get().received_at == came

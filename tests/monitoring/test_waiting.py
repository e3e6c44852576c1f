"""What waits in each lane and what comes back, counted without reading what is done."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from campaigns.models import Enrollment
from delivery.models import Bounce, Message, Visit
from delivery.states import MessageState, Stream
from events.states import EventState
from monitoring import waiting
from monitoring.metrics import exposition
from monitoring.waiting import LANES, Lists, Waiting
from tests.factories import (
    CampaignFactory,
    ContactFactory,
    EventFactory,
    MessageFactory,
    ProviderFactory,
)
from tests.webhooks.outgoing.rows import make_delivery, make_endpoint
from webhooks.mailbox.account import account_of
from webhooks.mailbox.services import digest_of
from webhooks.models import BounceMailbox, OutgoingEndpoint, Poll, Receipt

pytestmark = [pytest.mark.django_db, pytest.mark.unaudited]

HOUR = timedelta(hours=1)
URL = "imaps://user:password@imap.example.com/INBOX"


def receipt(name: str, **fields: Any) -> Receipt:
    made: Receipt = Receipt.objects.create(
        **{
            "provider": "postmark",
            "provider_event_id": f"{name} {Receipt.objects.count()}",
            "body": b"{}",
            **fields,
        }
    )
    return made


def enrollment(**fields: Any) -> None:
    campaign = CampaignFactory(name="News")
    Enrollment.objects.create(
        campaign=campaign,
        contact=ContactFactory(),
        revision=campaign.revisions.get(),
        entry_key="key",
        event_id="event",
        event_at=Now(),
        **fields,
    )


def visit(message: Message, name: bytes, **fields: Any) -> Visit:
    made: Visit = Visit.objects.create(
        **{
            "message": message,
            "fingerprint": name,
            "client": name,
            "due_at": Now() - HOUR,
            **fields,
        }
    )
    return made


def make_one_due_in_each_lane() -> None:
    """An hour ago; and in each lane one that waits for its time, and one that is done with."""
    for due_at in (Now() - HOUR, Now() + HOUR):
        EventFactory(due_at=due_at)
        enrollment(wake_at=due_at)
        MessageFactory(stream=Stream.TRANSACTIONAL, due_at=due_at)
        MessageFactory(stream=Stream.MARKETING, state=MessageState.RETRY, due_at=due_at)
    EventFactory(state=EventState.PROCESSED, due_at=Now() - HOUR)
    enrollment(state="finished")
    message = MessageFactory(state=MessageState.SENT, due_at=Now() - HOUR)
    receipt("due", due_at=Now() - HOUR)
    receipt("later", due_at=Now() + HOUR)
    receipt("tried", due_at=Now() - HOUR, attempts=2, state="parked")
    receipt("applied", due_at=Now() - HOUR, state="applied", attempts=1)
    Bounce.objects.create(message=message, bounce_class="hard", at=Now() - HOUR)
    Bounce.objects.create(message=message, bounce_class="full", is_applied=True, at=Now() - HOUR)
    visit(message, b"due")
    visit(message, b"judged", actor="person")
    endpoint = make_endpoint()
    make_delivery(endpoint, due_at=Now() - HOUR)
    make_delivery(endpoint, due_at=Now() + HOUR)
    make_delivery(endpoint, due_at=Now() - HOUR, state="delivered", settled_at=Now())


def test_each_lane_tells_what_is_due_in_it_and_since_when() -> None:
    make_one_due_in_each_lane()
    found = waiting.lanes()
    assert {lane: found[lane].count for lane in LANES} == {
        "events": 1,
        "timers": 1,
        "transactional": 1,
        "marketing": 1,
        "feedback": 4,
        "outgoing": 1,
    }
    assert {3_600 <= found[lane].seconds < 3_700 for lane in LANES} == {True}


def test_lanes_with_nothing_due_say_so() -> None:
    assert waiting.lanes() == dict.fromkeys(LANES, Waiting())


@pytest.mark.parametrize("field", [{"is_active": False}, {"resume_at": Now() + HOUR}])
def test_what_waits_for_its_endpoint_is_no_work_of_the_lane_and_told_as_waiting(
    field: dict[str, Any],
) -> None:
    make_delivery(make_endpoint(**field), due_at=Now() - HOUR)
    assert waiting.lanes()["outgoing"] == Waiting()
    pending = waiting.outgoing_deliveries()["pending"]
    assert pending.count == 1
    assert pending.seconds >= 3_600


def test_feedback_that_is_stuck_or_dead_shows() -> None:
    make_one_due_in_each_lane()
    receipt("dead", state="dead", due_at=Now() - 9 * HOUR, attempts=5)
    make_delivery(OutgoingEndpoint.objects.get(), state="dead", due_at=Now() - 9 * HOUR)
    receipts = waiting.receipts()
    assert {state: found.count for state, found in receipts.items()} == {
        "pending": 2,
        "parked": 1,
        "dead": 1,
    }
    assert 3_600 <= receipts["pending"].seconds < 3_700
    assert receipts["dead"].seconds == 0
    assert waiting.answers().count == 1
    assert 3_600 <= waiting.answers().seconds < 3_700
    deliveries = waiting.outgoing_deliveries()
    assert (deliveries["pending"].count, deliveries["dead"].count) == (2, 1)


def test_counting_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MOST", 2)
    for number in range(3):
        receipt(f"a{number}", due_at=Now() - HOUR)
        receipt(f"b{number}", due_at=Now() - HOUR, attempts=1)
        receipt(f"c{number}", state="dead")
        make_delivery(make_endpoint(), due_at=Now() - HOUR)
    assert waiting.lanes()["feedback"].count == 2
    assert waiting.lanes()["outgoing"].count == 2
    assert {found.count for found in waiting.receipts().values()} == {0, 2}
    assert waiting.outgoing_deliveries()["pending"].count == 2


def poll(**fields: Any) -> Poll:
    provider = ProviderFactory(key=f"sendgrid-{Poll.objects.count()}", backend="sendgrid")
    made: Poll = Poll.objects.create(
        **{"provider": provider, "source": "sendgrid", "list": "bounces", **fields}
    )
    return made


def test_lists_are_told_by_how_their_reading_went() -> None:
    poll(last_ok_at=Now() - HOUR)
    poll(last_ok_at=Now() - 5 * HOUR, last_error="status 403", failures=2)
    poll()
    poll(source="mailgun", last_error="of a provider it is no more", last_ok_at=Now() - 99 * HOUR)
    found = waiting.lists()
    assert (found.read, found.failing, found.never) == (1, 1, 1)
    assert found.oldest is not None
    assert 5 * 3_600 <= found.oldest < 5 * 3_600 + 100


def test_lists_that_nobody_reads_do_not_fail(settings: Any) -> None:
    settings.RECONCILE_HOURS = 0
    poll(last_error="status 403")
    assert waiting.lists() == Lists()


def test_mailbox_is_told_with_its_failures_and_last_good_reading(settings: Any) -> None:
    settings.BOUNCE_MAILBOX_URL = ""
    assert waiting.mailbox() is None
    assert "emailauto_mailbox" not in exposition().decode()
    settings.BOUNCE_MAILBOX_URL = "nonsense"
    assert waiting.mailbox() is None
    settings.BOUNCE_MAILBOX_URL = URL
    assert "emailauto_mailbox_ok_seconds NaN" in exposition().decode()
    BounceMailbox.objects.create(account="another", failures=9)
    BounceMailbox.objects.create(
        account=digest_of(account_of(URL)), failures=2, last_ok_at=Now() - HOUR
    )
    told = dict(line.split(" ") for line in exposition().decode().splitlines() if line[0] != "#")
    assert float(told["emailauto_mailbox_failures"]) == 2
    assert 3_600 <= float(told["emailauto_mailbox_ok_seconds"]) < 3_700


def test_metrics_tell_all_of_it() -> None:
    make_one_due_in_each_lane()
    receipt("dead", state="dead")
    poll(last_error="status 403")
    told = dict(
        line.rsplit(" ", 1) for line in exposition().decode().splitlines() if line[0] != "#"
    )
    assert float(told['emailauto_lane_due{lane="feedback"}']) == 4
    assert float(told['emailauto_lane_oldest_due_seconds{lane="timers"}']) >= 3_600
    assert float(told['emailauto_receipts{state="dead"}']) == 1
    assert float(told["emailauto_receipts_oldest_due_seconds"]) >= 3_600
    assert float(told["emailauto_answers"]) == 1
    assert float(told["emailauto_answers_oldest_seconds"]) >= 3_600
    assert float(told['emailauto_outgoing_deliveries{state="pending"}']) == 2
    assert float(told["emailauto_outgoing_oldest_due_seconds"]) >= 3_600
    assert float(told['emailauto_polls{state="failing"}']) == 1
    assert told["emailauto_polls_oldest_ok_seconds"] == "NaN"


def test_front_page_says_what_came_back_and_did_not_count(
    admin_client: Client, settings: Any
) -> None:
    settings.BOUNCE_MAILBOX_URL = URL
    page = admin_client.get(reverse("admin:index")).text
    assert "dead receipts" not in page
    assert "bounce mailbox" not in page
    receipt("dead", state="dead")
    make_delivery(make_endpoint(), state="dead")
    poll(last_error="status 403")
    mailbox = BounceMailbox.objects.create(account=digest_of(account_of(URL)), failures=2)
    assert "bounce mailbox" not in admin_client.get(reverse("admin:index")).text
    BounceMailbox.objects.filter(pk=mailbox.pk).update(failures=3, last_error="it refused <login>")
    page = admin_client.get(reverse("admin:index")).text
    for words, url in (
        ("dead receipts", reverse("admin:webhooks_receipt_changelist") + "?state__exact=dead"),
        (
            "dead outgoing deliveries",
            reverse("admin:webhooks_outgoingdelivery_changelist") + "?state__exact=dead",
        ),
        ("lists at providers not read", reverse("admin:webhooks_poll_changelist")),
    ):
        assert words in page
        assert f'href="{url}"' in page
        assert admin_client.get(url).status_code == 200
    assert "it refused &lt;login&gt;" in page


def test_queries_do_not_depend_on_what_there_is() -> None:
    counts = []
    for _ in range(2):
        make_one_due_in_each_lane()
        poll()
        with CaptureQueriesContext(connection) as queries:
            exposition()
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 30


# A hundred times the size of what is due; what a sequential scan would go through.
MANY = 20_000
NEW = {
    "id": "gen_random_uuid()",
    "event_id": "event_id || '-' || g",
    "dedupe_key": "dedupe_key || '-' || g",
    "entry_key": "entry_key || '-' || g",
    "provider_event_id": "provider_event_id || '-' || g",
    "fingerprint": "decode(md5(g::text), 'hex')",
}
BIG = (
    "events_event",
    "campaigns_enrollment",
    "delivery_message",
    "webhooks_receipt",
    "delivery_visit",
    "webhooks_outgoingdelivery",
    "delivery_bounce",
)


def multiply(table: str, where: str) -> None:
    """Many copies of the row that is done with."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT column_name, data_type FROM information_schema.columns"
            " WHERE table_name = %s ORDER BY ordinal_position",
            [table],
        )
        columns = [name for name, kind in cursor.fetchall() if (name, kind) != ("id", "bigint")]
        values = ", ".join(NEW.get(name, name) for name in columns)
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM"
            f" (SELECT * FROM {table} WHERE {where} LIMIT 1) AS one,"
            " generate_series(1, %s) AS g",
            [MANY],
        )


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def test_nothing_that_is_done_is_read() -> None:
    make_one_due_in_each_lane()
    multiply("events_event", "state = 'processed'")
    multiply("campaigns_enrollment", "state = 'finished'")
    multiply("delivery_message", "state = 'sent'")
    multiply("webhooks_receipt", "state = 'applied'")
    multiply("delivery_visit", "actor <> ''")
    multiply("webhooks_outgoingdelivery", "state = 'delivered'")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO delivery_bounce (message_id, bounce_class, detail, source, is_applied)"
            " SELECT id, 'hard', '', 'smtp', true FROM delivery_message ON CONFLICT DO NOTHING"
        )
        for table in BIG:
            cursor.execute(f"ANALYZE {table}")
    with CaptureQueriesContext(connection) as queries:
        exposition()
    read = {}
    for query in queries:
        with connection.cursor() as cursor:
            cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + query["sql"].replace("%", "%%"))
            (found,) = cursor.fetchone()
        plan = json.loads(found) if isinstance(found, str) else found
        for node in nodes(plan[0]["Plan"]):
            if node.get("Relation Name") in BIG:
                assert node["Node Type"] != "Seq Scan", query["sql"]
                removed = sum(v for k, v in node.items() if k.startswith("Rows Removed by"))
                rows = round((node["Actual Rows"] + removed) * node["Actual Loops"])
                table = node["Relation Name"]
                read[table] = max(rows, read.get(table, 0))
    assert set(read) == set(BIG)
    assert max(read.values()) < 20

"""The providers' own lists, read over real HTTP: what webhooks lost is restored."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from common.addresses import address_hash
from contacts.models import Subscription
from contacts.services import record_consent
from contacts.states import ConsentState
from delivery.models import Bounce, Provider
from delivery.states import MessageState
from emailauto.supervisor.programs import _BULK_LANES
from suppression.models import Suppression
from tests.delivery.crashing import environment
from tests.delivery.fakeesp import Answer, drip, endless, gzip_bomb, reset
from tests.factories import MessageFactory, SenderFactory, TopicFactory
from tests.webhooks.accounts import DOMAIN, account
from tests.webhooks.fakelists import KEY, Entry, FakeLists, fake_lists
from webhooks.models import Poll
from webhooks.reconciliation import polls
from webhooks.reconciliation.accounts import accounts
from webhooks.reconciliation.providers import ses
from webhooks.reconciliation.services import forget_cursors, hurry_polls, reconcile, reconcile_now
from webhooks.tasks import reconcile_task

pytestmark = pytest.mark.django_db

NOW = datetime.now(UTC)
ALL_HARD = ("all", "hard_bounce")
SPAM = ("marketing", "complaint")
LEFT = ("marketing", "unsubscribe")

# What each provider has on its lists, and what has to come of it.
LISTS: dict[str, dict[str, list[tuple[str, str, tuple[str, str] | None]]]] = {
    "ses": {
        "suppressions": [
            ("hard@example.com", "BOUNCE", ALL_HARD),
            ("spam@example.com", "COMPLAINT", SPAM),
            ("Third@Example.com", "BOUNCE", ALL_HARD),
            ("new-reason@example.com", "SOMETHING_NEW", None),
            ("last@example.com", "BOUNCE", ALL_HARD),
        ]
    },
    "sendgrid": {
        "bounces": [
            ("hard@example.com", "550 5.1.1 user unknown", ALL_HARD),
            ("full@example.com", "552 5.2.2 mailbox full", None),
            ("third@example.com", "550 5.1.1 no such user", ALL_HARD),
        ],
        "spam_reports": [("spam@example.com", "", SPAM)],
        "unsubscribes": [("left@example.com", "", LEFT)],
        "invalid_emails": [("invalid@example.com", "550 5.1.3 bad domain", ALL_HARD)],
    },
    "postmark": {
        "outbound": [
            ("hard@example.com", "HardBounce", ALL_HARD),
            ("spam@example.com", "SpamComplaint", SPAM),
        ],
        "broadcast": [
            ("left@example.com", "ManualSuppression", LEFT),
            ("new-reason@example.com", "SomethingNew", LEFT),
        ],
        "bounces": [
            ("gone@example.com", "BadEmailAddress", ALL_HARD),
            ("soft@example.com", "SoftBounce", None),
            ("filter@example.com", "SpamNotification", None),
        ],
    },
    "mailgun": {
        f"{DOMAIN}/bounces": [
            ("a@example.com", "no such user", ALL_HARD),
            ("b@example.com", "no such user", ALL_HARD),
            ("c@example.com", "no such user", ALL_HARD),
        ],
        f"{DOMAIN}/complaints": [("spam@example.com", "", SPAM)],
        f"{DOMAIN}/unsubscribes": [("left@example.com", "", LEFT)],
        "second.example.com/bounces": [("other-domain@example.com", "gone", ALL_HARD)],
        "second.example.com/complaints": [],
        "second.example.com/unsubscribes": [],
    },
    "brevo": {
        "blocked": [
            ("hard@example.com", "hardBounce", ALL_HARD),
            ("spam@example.com", "contactFlaggedAsSpam", SPAM),
            ("left@example.com", "unsubscribedViaEmail", LEFT),
            ("admin@example.com", "adminBlocked", LEFT),
            ("new-reason@example.com", "somethingNew", LEFT),
        ]
    },
}
KINDS = sorted(LISTS)


@pytest.fixture(autouse=True)
def _unhurried(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Both ends are in this process, and it may have to wait for its turn.
    settings.EMAIL_TIMEOUT = 60
    monkeypatch.setattr(ses, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def sendgrid() -> Iterator[FakeLists]:
    with fake_lists("sendgrid") as server:
        yield server


def fill(server: FakeLists, *, at: datetime) -> dict[str, tuple[str, str]]:
    """Everybody onto their lists, all at one time; returns who has to be suppressed, and how."""
    SenderFactory(email="news@second.example.com")
    SenderFactory(email="shop@not-at-this-provider.example.com")
    wanted = {}
    for name, entries in LISTS[server.kind].items():
        server.lists[name] = [Entry(address, at, reason) for address, reason, _ in entries]
        wanted |= {address.lower(): what for address, _, what in entries if what is not None}
    return wanted


def suppressed() -> dict[str, tuple[str, str]]:
    rows = Suppression.objects.values_list("email", "scope", "reason")
    return {email.lower(): (scope, reason) for email, scope, reason in rows}


def make_due(*, since: timedelta | None = None) -> None:
    """A day later; `since`: so long ago was the last complete run."""
    Poll.objects.update(due_at=Now())
    if since is not None:
        Poll.objects.update(since=Now() - since)


@pytest.mark.parametrize("kind", KINDS)
def test_lists_are_read_to_their_end_and_suppress_for_their_reasons(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_lists(kind) as server:
        account(server, monkeypatch)
        wanted = fill(server, at=NOW - timedelta(days=200))
        assert not reconcile(budget=60)
    assert suppressed() == wanted
    rows = list(Poll.objects.all())
    assert {row.last_error for row in rows} == {""}
    assert all(row.last_ok_at and row.since and row.page == "" and not row.until for row in rows)
    assert sum(row.restored for row in rows) == len(wanted)
    assert all(row.due_at - row.last_ok_at == timedelta(hours=24) for row in rows)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outage", [timedelta(hours=10), timedelta(days=40)])
def test_w17_one_poll_restores_what_an_outage_lost(
    kind: str, outage: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten hours, and longer than any provider goes on calling: not one webhook arrived."""
    with fake_lists(kind) as server:
        account(server, monkeypatch)
        fill(server, at=NOW)
        for name in server.lists:
            server.lists[name] = []
        assert not reconcile(budget=60)
        assert suppressed() == {}
        make_due(since=outage)
        wanted = fill(server, at=NOW - outage + timedelta(minutes=1))
        assert not reconcile(budget=60)
    assert suppressed() == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_read_before_is_left_out_but_for_some_days_of_overlap(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_lists(kind, page_size=50) as server:
        account(server, monkeypatch)
        fill(server, at=NOW - timedelta(days=30))
        reconcile(budget=60)
        Suppression.objects.all().delete()
        make_due()
        reconcile(budget=60)
        assert suppressed() == {}
        make_due()
        wanted = fill(server, at=NOW - timedelta(days=2))
        reconcile(budget=60)
    assert suppressed() == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_reading_twice_changes_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_lists(kind) as server:
        account(server, monkeypatch)
        wanted = fill(server, at=NOW - timedelta(hours=1))
        reconcile(budget=60)
        before = list(Suppression.objects.order_by("pk").values())
        make_due()
        reconcile(budget=60)
    assert suppressed() == wanted
    assert list(Suppression.objects.order_by("pk").values()) == before
    assert set(Poll.objects.values_list("restored", flat=True)) == {0}


def test_the_configured_provider_is_read_with_the_config_files_key(
    sendgrid: FakeLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENDGRID_API_KEY", KEY)
    provider = account(sendgrid, monkeypatch, backend=Provider.Backend.CONFIGURED, key="default")
    monkeypatch.setattr(
        "delivery.routes.settings.EMAILAUTO", _with_api_url(sendgrid.url), raising=False
    )
    wanted = fill(sendgrid, at=NOW)
    reconcile(budget=60)
    assert suppressed() == wanted
    assert set(Poll.objects.values_list("provider", "source")) == {(provider.pk, "sendgrid")}


def _with_api_url(url: str) -> Any:
    config = settings.EMAILAUTO
    provider = msgspec.structs.replace(
        config.provider, type="sendgrid", api_key_env="SENDGRID_API_KEY", api_url=url
    )
    return msgspec.structs.replace(config, provider=provider)


def test_a_bounce_that_names_its_mail_is_noted_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_lists("postmark") as server:
        provider = account(server, monkeypatch)
        message = MessageFactory(state=MessageState.SENT, provider=provider, esp_id="esp-7")
        entries = [Entry(message.email, NOW, "HardBounce", mail="esp-7")]
        server.lists = {"bounces": entries}
        reconcile(budget=60)
    message.refresh_from_db()
    assert message.bounced_at is not None
    assert Bounce.objects.get().message_id == message.pk
    assert suppressed() == {message.email: ALL_HARD}  # to whom it was sent, not whom they name


def test_providers_without_lists_are_not_asked() -> None:
    SenderFactory()
    assert not reconcile(budget=5)
    assert not Poll.objects.exists()


def test_zero_hours_switch_it_off(
    sendgrid: FakeLists, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.RECONCILE_HOURS = 0
    account(sendgrid, monkeypatch)
    assert not reconcile(budget=5)
    assert sendgrid.requests == []


FAULTS = {
    "401": (Answer(401, {"errors": [{"message": f"{KEY} hard@example.com"}]}), "status 401"),
    "403": (Answer(403, ""), "status 403"),
    "429": (Answer(429, "", {"Retry-After": "1234"}), "status 429"),
    "500": (Answer(500, "<html>hard@example.com</html>"), "status 500"),
    "301": (Answer(301, "", {"Location": "http://192.0.2.1/"}), "status 301"),
    "garbage": (Answer(200, "<html>hello</html>"), "no JSON"),
    "another shape": (Answer(200, {"hello": 1}), "another shape"),
    "deep": (Answer(200, "[" * 200_000), "no JSON"),
    "huge": (Answer(do=endless), "no answer: ConnectionError"),
    "bomb": (Answer(do=gzip_bomb), "no answer: ConnectionError"),
    "slow": (Answer(seconds=4), "no answer"),
    "drip": (Answer(do=drip(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 900, 0.05)), "no answer"),
    "reset": (Answer(do=reset), "no answer: ConnectionError"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_a_provider_answers_is_noted_and_made_good(
    fault: str,
    sendgrid: FakeLists,
    monkeypatch: pytest.MonkeyPatch,
    caplog: Any,
    settings: Any,
) -> None:
    account(sendgrid, monkeypatch)
    wanted = fill(sendgrid, at=NOW)
    answer, why = FAULTS[fault]
    sendgrid.script = [answer]
    settings.EMAIL_TIMEOUT = 2 if fault in ("slow", "drip") else 60
    reconcile(budget=60)
    settings.EMAIL_TIMEOUT = 60
    poll = Poll.objects.get(list="bounces")
    assert why in poll.last_error
    assert (poll.failures, poll.last_ok_at) == (1, None)
    assert poll.due_at > datetime.now(UTC) + timedelta(minutes=3)
    said = caplog.text + poll.last_error
    assert KEY not in said
    assert "hard@" not in said
    make_due()
    reconcile(budget=60)
    poll.refresh_from_db()
    assert (poll.last_error, poll.failures) == ("", 0)
    assert poll.last_ok_at
    assert suppressed() == wanted


def test_entries_that_are_none_keep_no_others_from_being_applied(
    sendgrid: FakeLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(sendgrid, monkeypatch)
    good = {"email": "Ada@Example.com", "created": "yesterday", "reason": "550 5.1.1 unknown"}
    junk = [None, 1, {"email": None}, {"email": "a b", "reason": "550 5.1.1"}, {"email": {}}]
    sendgrid.script = [Answer(200, [*junk, good])]
    reconcile(budget=60)
    assert suppressed() == {"ada@example.com": ALL_HARD}
    assert not Poll.objects.exclude(last_error="").exists()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(403, {}, {"x-amzn-ErrorType": "AccessDeniedException"}), "needs the permission"),
        (Answer(429, {}, {"x-amzn-ErrorType": "TooManyRequestsException"}), "TooManyRequests"),
        (Answer(500, "<html>"), "500"),
        (Answer(do=reset), "no answer: Conn"),
        (Answer(200, "<html>"), "another shape"),
    ],
)
def test_ses_is_asked_once_whatever_it_answers(
    answer: Answer, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """boto3 would ask again by itself, where nobody sees it."""
    with fake_lists("ses") as server:
        account(server, monkeypatch)
        server.script = [answer]
        reconcile(budget=60)
        assert len(server.requests) == 1
    poll = Poll.objects.get()
    assert why in poll.last_error
    assert KEY not in poll.last_error


@pytest.mark.parametrize("kind", ["mailgun", "postmark", "sendgrid"])
def test_an_answer_without_a_list_is_none_on_which_nobody_is(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_lists(kind) as server:
        account(server, monkeypatch)
        wanted = fill(server, at=NOW)
        server.script = [Answer(200, {"message": "hello"})]
        reconcile(budget=60)
        assert Poll.objects.get(since=None).last_error == "an answer in another shape"
        make_due()
        reconcile(budget=60)
    assert suppressed() == wanted


def test_retry_after_is_kept(sendgrid: FakeLists, monkeypatch: pytest.MonkeyPatch) -> None:
    account(sendgrid, monkeypatch)
    sendgrid.script = [FAULTS["429"][0]]
    reconcile(budget=60)
    pause = Poll.objects.get(list="bounces").due_at - datetime.now(UTC)
    assert timedelta(seconds=1200) < pause < timedelta(seconds=1236)


def test_a_failing_list_is_asked_less_and_less(
    sendgrid: FakeLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(sendgrid, monkeypatch)
    pauses = []
    for _ in range(9):
        make_due()
        sendgrid.script = [Answer(500)] * 4
        reconcile(budget=60)
        pauses.append((Poll.objects.get(list="bounces").due_at - datetime.now(UTC)).seconds // 60)
    assert pauses[:3] == [4, 9, 19]
    assert pauses[-1] == 359


def test_a_missing_key_is_noted_by_its_variables_name(
    sendgrid: FakeLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(sendgrid, monkeypatch)
    monkeypatch.delenv("KEY_SENDGRID")
    reconcile(budget=60)
    errors = set(Poll.objects.values_list("last_error", flat=True))
    assert errors == {"the environment variable KEY_SENDGRID is empty"}


def test_a_run_goes_on_with_the_page_it_had_come_to(
    sendgrid: FakeLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(sendgrid, monkeypatch)
    wanted = fill(sendgrid, at=NOW)
    first_page = Answer(200, [{"email": "hard@example.com", "reason": "550 5.1.1 unknown"}] * 2)
    sendgrid.script = [first_page, Answer(500)]
    reconcile(budget=60)
    poll = Poll.objects.get(list="bounces")
    assert (poll.page, poll.entries, poll.restored) == ("2", 2, 1)
    assert suppressed()["hard@example.com"] == ALL_HARD
    sendgrid.requests.clear()
    make_due()
    reconcile(budget=60)
    asked = [q["offset"] for path, q in sendgrid.requests if path == "/suppression/bounces"]
    assert asked == ["2", "3"]
    assert suppressed() == wanted


def test_a_run_begins_anew_when_its_place_is_refused_again_and_again(
    sendgrid: FakeLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(sendgrid, monkeypatch)
    fill(sendgrid, at=NOW)
    reconcile(budget=60)
    Poll.objects.filter(list="bounces").update(page="2", until=Now())
    for _ in range(3):
        Poll.objects.filter(list="bounces").update(due_at=Now())
        sendgrid.script = [Answer(400, "no such page")]
        reconcile(budget=60)
    assert Poll.objects.get(list="bounces").page == ""


@pytest.mark.parametrize(
    "answer",
    [Answer(429, ""), Answer(500, ""), Answer(503, ""), Answer(401, ""), Answer(do=reset)],
    ids=["429", "500", "503", "401", "reset"],
)
def test_an_outage_a_limit_and_a_key_do_not_lose_the_place(
    answer: Answer, sendgrid: FakeLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that may be asked five times an hour would never be read to its end."""
    account(sendgrid, monkeypatch)
    wanted = fill(sendgrid, at=NOW)
    reconcile(budget=60)
    Suppression.objects.all().delete()
    bounces = Poll.objects.filter(list="bounces")
    bounces.update(page="2", until=Now())
    for number in range(1, 8):
        # Two that blame the place, and others between them, are no three in a row.
        blamed = number in (2, 5)
        bounces.update(due_at=Now())
        sendgrid.script = [Answer(400, "no such page") if blamed else answer]
        reconcile(budget=60)
        assert bounces.get().page == "2"
        assert bounces.get().failures == number
    assert bounces.get().refusals == 2
    bounces.update(due_at=Now())
    sendgrid.requests.clear()
    reconcile(budget=60)
    assert [query["offset"] for _, query in sendgrid.requests] == ["2", "3"]
    assert set(suppressed()) < set(wanted)
    assert (bounces.get().refusals, bounces.get().last_error) == (0, "")


@pytest.mark.parametrize(
    ("name", "reset_at", "seconds"),
    [
        ("X-RateLimit-Reset", lambda: int(time.time()) + 3_000, 3_000),
        ("X-RateLimit-Reset", lambda: int(time.time() + 3_000) * 1_000, 3_000),
        ("x-sib-ratelimit-reset", lambda: 900, 900),
        ("X-RateLimit-Reset", lambda: int(time.time()) + 10**6, 6 * 3_600),
        ("X-RateLimit-Reset", lambda: int(time.time()) - 100, 1),
        ("X-RateLimit-Reset", lambda: "soon", 60),
        ("X-RateLimit-Reset", lambda: "9" * 400, 60),
        ("X-RateLimit-Reset", lambda: "nan", 60),
    ],
)
def test_the_end_of_a_limit_is_waited_for(
    name: str,
    reset_at: Callable[[], object],
    seconds: int,
    sendgrid: FakeLists,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account(sendgrid, monkeypatch)
    sendgrid.script = [Answer(429, "", {name: str(reset_at())})]
    before = datetime.now(UTC)
    reconcile(budget=60)
    due_at = Poll.objects.get(list="bounces").due_at
    pause = timedelta(seconds=seconds)
    assert before + pause - timedelta(seconds=2) <= due_at <= datetime.now(UTC) + pause


def read_a_page(server: FakeLists, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is over once the page has come, however fast or slow this machine is: the clock
    counts what was asked for."""
    with monkeypatch.context() as counted:
        counted.setattr(polls, "time", SimpleNamespace(monotonic=lambda: len(server.requests)))
        polls.run_polls(accounts(), deadline=len(server.requests) + 1)


def same_page_for_ever(server: FakeLists) -> None:
    page = {"email": "hard@example.com", "reason": "550 5.1.1 unknown", "created": 1}

    def repeat(_number: int) -> None:
        server.script = [Answer(200, [page])]

    server.before = repeat
    server.script = [Answer(200, [page])]


def test_a_list_that_does_not_listen_to_the_place_is_noted(
    sendgrid: FakeLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(sendgrid, monkeypatch)
    same_page_for_ever(sendgrid)
    polls.plan_polls(accounts())
    Poll.objects.exclude(list="bounces").delete()
    for _ in range(2):  # whoever comes to it first, and whoever goes on
        Poll.objects.update(due_at=Now())
        read_a_page(sendgrid, monkeypatch)
    poll = Poll.objects.get()
    assert poll.last_error == "the same page as before: it does not listen to where we are"
    assert (poll.pages, poll.page, poll.refusals) == (1, "1", 1)
    assert len(sendgrid.requests) == 2
    assert poll.due_at > datetime.now(UTC) + timedelta(minutes=3)


def test_a_list_without_an_end_is_noted_however_many_tasks_read_it(
    sendgrid: FakeLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polls, "_MOST_PAGES", 3)
    account(sendgrid, monkeypatch)
    sendgrid.page_size = 1
    everybody = [Entry(f"u{n}@example.com", NOW, "550 5.1.1 unknown") for n in range(9)]
    sendgrid.lists = {"bounces": everybody}
    polls.plan_polls(accounts())
    Poll.objects.exclude(list="bounces").delete()
    for pages in (1, 2, 3, 3):
        read_a_page(sendgrid, monkeypatch)
        assert Poll.objects.get().pages == pages
    assert Poll.objects.get().last_error == "a list without an end"
    # A new run counts anew.
    forget_cursors([Poll.objects.get().pk])
    read_a_page(sendgrid, monkeypatch)
    assert Poll.objects.get().pages == 1


def test_two_domains_may_have_the_same_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_lists("mailgun") as server:
        account(server, monkeypatch)
        SenderFactory(email="news@second.example.com")
        same = [Entry("both@example.com", NOW, "no such user")]
        server.lists = {f"{DOMAIN}/bounces": same, "second.example.com/bounces": list(same)}
        reconcile(budget=60)
    assert suppressed() == {"both@example.com": ALL_HARD}
    assert Poll.objects.get(list="bounces").last_error == ""


def test_a_budget_that_is_over_ends_after_the_page(
    sendgrid: FakeLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = account(sendgrid, monkeypatch)
    wanted = fill(sendgrid, at=NOW)
    asked = accounts()
    polls.plan_polls(asked)
    sendgrid.before = lambda number: threading.Event().wait(0.05)
    rounds = 0
    while polls.run_polls(asked, deadline=time.monotonic() + 0.01):
        rounds += 1
        assert rounds < 50
    assert rounds > 4
    assert suppressed() == wanted
    assert provider.polls.filter(claimed_until__isnull=False).count() == 0


def test_a_page_costs_the_same_queries_whatever_its_size(
    sendgrid: FakeLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(sendgrid, monkeypatch)
    sendgrid.page_size = 50
    reconcile_now()
    counts = []
    for size in (1, 50):
        make_due()
        everybody = [f"{size}-{n}@example.com" for n in range(size)]
        sendgrid.lists = {"spam_reports": [Entry(email, NOW) for email in everybody]}
        with CaptureQueriesContext(connection) as captured:
            reconcile(budget=60)
        counts.append(len(captured))
        assert set(everybody) <= set(suppressed())
    assert counts[0] == counts[1]


@pytest.mark.django_db(transaction=True)
def test_kill_9_in_mid_poll_loses_nothing(
    sendgrid: FakeLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(sendgrid, monkeypatch)
    wanted = fill(sendgrid, at=NOW)
    victims: list[subprocess.Popen[bytes]] = []

    def kill(number: int) -> None:
        if number == 2:
            victims[0].kill()

    sendgrid.before = kill
    victims.append(
        subprocess.Popen(
            [sys.executable, "manage.py", "reconcile"],
            env=environment(broker="memory://"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    )
    assert victims[0].wait(60) == -signal.SIGKILL
    left = Poll.objects.exclude(lease_owner="").get()
    assert (left.page, left.entries) == ("2", 2)
    assert not reconcile(budget=60)  # the lease holds: that list is left alone, the others are read
    assert Poll.objects.filter(last_ok_at__isnull=True).get().pk == left.pk
    Poll.objects.filter(pk=left.pk).update(claimed_until=Now() - timedelta(seconds=1))
    sendgrid.requests.clear()
    assert not reconcile(budget=60)
    assert [query["offset"] for _, query in sendgrid.requests] == ["2", "3"]
    assert suppressed() == wanted


@pytest.mark.django_db(transaction=True)
def test_two_pollers_at_once_read_each_list_once(
    sendgrid: FakeLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(sendgrid, monkeypatch)
    wanted = fill(sendgrid, at=NOW)
    reconcile_now()
    asked = [(path, query["offset"]) for path, query in sendgrid.requests]
    sendgrid.requests.clear()
    Suppression.objects.all().delete()
    make_due()

    def poll() -> None:
        try:
            reconcile(budget=30)
        finally:
            connection.close()

    both = [threading.Thread(target=poll) for _ in range(3)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    again = [(path, query["offset"]) for path, query in sendgrid.requests]
    assert sorted(again) == sorted(asked)
    assert suppressed() == wanted


@pytest.mark.django_db(transaction=True)
def test_a_poller_that_was_frozen_changes_nothing_more(
    sendgrid: FakeLists, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """It wakes up with an answer for a list that another has taken over and finished."""
    account(sendgrid, monkeypatch)
    wanted = fill(sendgrid, at=NOW)
    reconcile_now()
    make_due()

    def overtake(number: int) -> None:
        sendgrid.before = lambda number: None
        Poll.objects.update(claimed_until=Now() - timedelta(seconds=1))
        reconcile(budget=30)
        connection.close()

    sendgrid.before = overtake
    reconcile(budget=30)
    assert "poll taken over" in caplog.text
    rows = Poll.objects.all()
    assert [(row.page, row.lease_owner, row.until) for row in rows] == [("", "", None)] * 4
    assert Poll.objects.get(list="bounces").entries == 3
    assert suppressed() == wanted


def test_http_is_done_outside_of_any_transaction(
    sendgrid: FakeLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(sendgrid, monkeypatch)
    fill(sendgrid, at=NOW)
    ours = connections["default"]  # of this thread; the server answers in another
    depth, depths = len(ours.savepoint_ids), []
    sendgrid.before = lambda number: depths.append(len(ours.savepoint_ids))
    reconcile(budget=60)
    assert set(depths) == {depth}


def test_command_reads_what_is_not_due_and_tells(
    sendgrid: FakeLists, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    account(sendgrid, monkeypatch)
    reconcile(budget=60)
    wanted = fill(sendgrid, at=NOW)
    call_command("reconcile", "--provider", "sendgrid")
    assert suppressed() == wanted
    assert "3 read         2 restored  sendgrid bounces" in capsys.readouterr().out


def test_command_ends_with_an_error_when_a_list_was_not_told(
    sendgrid: FakeLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(sendgrid, monkeypatch)
    sendgrid.script = [Answer(500)]
    with pytest.raises(CommandError, match="not every list"):
        call_command("reconcile")


def test_command_refuses_a_provider_without_lists() -> None:
    with pytest.raises(CommandError, match="no provider nobody"):
        call_command("reconcile", "--provider", "nobody")


def test_reading_from_the_beginning_finds_what_is_old(
    sendgrid: FakeLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(sendgrid, monkeypatch)
    wanted = fill(sendgrid, at=NOW - timedelta(days=300))
    reconcile(budget=60)
    Suppression.objects.all().delete()
    ids = list(Poll.objects.values_list("pk", flat=True))
    assert hurry_polls(ids) == 4
    reconcile(budget=60)
    assert suppressed() == {}
    assert forget_cursors(ids) == 4
    reconcile(budget=60)
    assert suppressed() == wanted


def test_task_reads_and_is_rung_on_a_queue_that_has_workers(
    sendgrid: FakeLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(sendgrid, monkeypatch)
    wanted = fill(sendgrid, at=NOW)
    entry = settings.CELERY_BEAT_SCHEDULE["reconcile"]
    reconcile_task()
    assert suppressed() == wanted
    assert entry["task"] == reconcile_task.name
    assert entry["options"]["queue"] in _BULK_LANES.split(",")


def test_stronger_reasons_here_stay(sendgrid: FakeLists, monkeypatch: pytest.MonkeyPatch) -> None:
    account(sendgrid, monkeypatch)
    Suppression.objects.create(
        address_hash=address_hash("left@example.com"),
        email="left@example.com",
        scope="marketing",
        reason="complaint",
        source="us",
    )
    fill(sendgrid, at=NOW)
    reconcile(budget=60)
    assert suppressed()["left@example.com"] == ("marketing", "complaint")


@pytest.mark.parametrize("kind", ["sendgrid", "postmark"])
def test_list_does_not_undo_what_the_person_has_asked_for_since(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the overlap each entry is read for days, and some lists are read whole each time."""
    message = MessageFactory(state=MessageState.SENT, stream="marketing", topic=TopicFactory())
    assert message.topic is not None
    record_consent(message.contact, message.topic, ConsentState.GRANTED, source="page")
    Subscription.objects.update(at=NOW - timedelta(hours=1))
    before, after = NOW - timedelta(hours=2), NOW - timedelta(minutes=1)
    name = {"sendgrid": "unsubscribes", "postmark": "broadcast"}[kind]
    why = {"sendgrid": "", "postmark": "ManualSuppression"}[kind]
    with fake_lists(kind) as server:
        account(server, monkeypatch)
        for moment, expected in ((before, set()), (after, {LEFT})):
            server.lists = {name: [Entry(message.email, moment, why)]}
            reconcile(budget=60)
            assert set(Suppression.objects.values_list("scope", "reason")) == expected
            Poll.objects.update(due_at=Now())

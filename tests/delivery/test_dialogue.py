"""One round trip per mail over SMTP: what it costs, and that a batch on one connection comes to
what its mails would have come to one by one."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.db.models.functions import Now

from common.valkey import redis_client
from delivery.connections import pool
from delivery.engine import deliver_batch, drain
from delivery.journal import Journal, JournalLost, revoke
from delivery.models import Message
from delivery.services import stop_sending
from tests.delivery.fakesmtp import FakeSMTP, fake_smtp
from tests.factories import MessageFactory, ProviderFactory, SenderFactory

pytestmark = pytest.mark.django_db

FIRST = ["MAIL", "RCPT", "DATA"]
NEXT = ["dot", *FIRST]


@pytest.fixture(autouse=True)
def _no_kept_connections() -> Iterator[None]:
    yield
    pool.close()


@pytest.fixture
def smtp() -> Iterator[FakeSMTP]:
    with fake_smtp() as server:
        yield server


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Message]]:
    """So many, to leave through the server over one connection."""

    def make(server: FakeSMTP, count: int, **provider: Any) -> list[Message]:
        monkeypatch.setenv("TEST_SMTP_URL", server.url)
        fields = {"backend": "smtp", "secret_env": "TEST_SMTP_URL", "concurrency": 1}
        row = ProviderFactory(key="smtp", **{**fields, **provider})
        return MessageFactory.create_batch(count, sender=SenderFactory(provider=row))

    return make


@pytest.fixture
def batch(messages: Any) -> Callable[..., list[str]]:
    """Deliver so many; the states they come to, in order."""

    def deliver(server: FakeSMTP, count: int) -> list[str]:
        messages(server, count)
        deliver_batch("transactional", limit=count)
        return states()

    return deliver


def states() -> list[str]:
    return list(Message.objects.order_by("pk").values_list("state", flat=True))


def test_batch_costs_one_round_trip_per_mail(smtp: FakeSMTP, batch: Any) -> None:
    assert batch(smtp, 5) == ["sent"] * 5
    assert smtp.turns == [["EHLO"], FIRST, NEXT, NEXT, NEXT, NEXT, ["dot"]]
    assert len(smtp.book.entries()) == 5


def test_server_without_pipelining_is_asked_step_by_step(batch: Any) -> None:
    with fake_smtp(pipelining=False) as smtp:
        assert batch(smtp, 3) == ["sent"] * 3
        assert smtp.turns == [["EHLO"], *[[verb] for _ in range(3) for verb in (*FIRST, "dot")]]


def test_text_is_written_only_once_it_is_begun_and_all_before_it_are_noted(
    smtp: FakeSMTP, batch: Any
) -> None:
    seen = []

    def look() -> str:
        (key,) = redis_client().keys("handover:*")
        entries = [v for k, v in redis_client().hgetall(key).items() if len(k) == 36]
        done = [entry for entry in entries if entry != b"begun"]
        assert {json.loads(entry)["outcome"] for entry in done} <= {"accepted"}
        seen.append((len(done), len(entries) - len(done)))
        return ""

    smtp.script = {("text", number): look for number in range(1, 6)}
    batch(smtp, 5)
    assert seen == [(done, 1) for done in range(5)]


@pytest.mark.parametrize("data", ["503 5.5.1 no valid recipients", "354 go on"])
@pytest.mark.parametrize(
    ("verb", "reply", "state"),
    [("RCPT", "550 5.1.1 no such user", "failed"), ("RCPT", "450 4.2.0 greylisted", "retry")],
)
def test_refused_announcement_has_its_verdict_and_the_stream_goes_on(
    smtp: FakeSMTP, batch: Any, verb: str, reply: str, state: str, data: str
) -> None:
    smtp.script = {(verb, 2): reply, ("DATA", 2): data}
    assert batch(smtp, 4) == ["sent", state, "sent", "sent"]
    # Whoever is asked for a text for nobody gets an empty one (RFC 2920 §3.1).
    empty = [["dot"]] if data.startswith("354") else []
    assert smtp.turns == [["EHLO"], FIRST, NEXT, *empty, ["RSET", *FIRST], NEXT, ["dot"]]
    assert len(smtp.book.entries()) == 3


def test_sender_that_is_refused_in_the_middle_ends_its_domain(smtp: FakeSMTP, batch: Any) -> None:
    smtp.script = {("MAIL", 2): "550 5.7.1 not you", ("DATA", 2): "503 5.5.1 bad sequence"}
    assert batch(smtp, 4) == ["sent", "retry", "queued", "queued"]
    assert smtp.turns == [["EHLO"], FIRST, NEXT]


def test_refused_text_does_not_touch_its_neighbours(smtp: FakeSMTP, batch: Any) -> None:
    smtp.script = {("dot", 2): "554 5.7.1 spam"}
    assert batch(smtp, 4) == ["sent", "failed", "sent", "sent"]
    assert smtp.turns == [["EHLO"], FIRST, NEXT, NEXT, NEXT, ["dot"]]


@pytest.mark.parametrize(
    ("event", "expected", "sessions"),
    [
        # Before anything was said of the mail: as a connection that has died of age.
        (("MAIL", 3), ["sent"] * 5, 2),
        (("RCPT", 3), ["sent", "sent", "retry", "queued", "queued"], 1),
        (("DATA", 3), ["sent", "sent", "retry", "queued", "queued"], 1),
    ],
)
def test_farewell_in_the_middle_of_an_announcement(
    smtp: FakeSMTP, batch: Any, event: tuple[str, int], expected: list[str], sessions: int
) -> None:
    smtp.script = {event: "421 4.3.2 closing"}
    assert batch(smtp, 5) == expected
    assert smtp.sessions == sessions
    assert len(smtp.book.entries()) == expected.count("sent")


def test_farewell_for_a_text_takes_the_announced_one_along_unbegun(
    smtp: FakeSMTP, batch: Any
) -> None:
    smtp.script = {("dot", 2): "421 4.3.2 closing"}
    assert batch(smtp, 5) == ["sent", "retry", "queued", "queued", "queued"]
    assert list(Message.objects.values_list("attempts", flat=True).order_by("pk"))[1] == 1
    assert smtp.texts == 2
    # Nothing is left of the conversation that could stand in the next one's way.
    smtp.script = {}
    pool.close()
    Message.objects.exclude(state="sent").update(due_at=Now())
    drain("transactional", budget=5)
    assert len(smtp.book.entries()) == 5


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (("MAIL", 3), ["sent"] * 5),
        (("RCPT", 3), ["sent"] * 5),
        (("DATA", 3), ["sent"] * 5),
        (("text", 3), ["sent", "sent", "unknown", "sent", "sent"]),
        (("taken", 3), ["sent", "sent", "unknown", "sent", "sent"]),
    ],
)
def test_connection_that_breaks_in_the_middle_leaves_one_doubt_at_most(
    batch: Any, event: tuple[str, int], expected: list[str], at_once: bool
) -> None:
    with fake_smtp(at_once=at_once) as smtp:
        smtp.script = {event: lambda: None}
        found = batch(smtp, 5)
        # What a server has not put on the wire before it hangs up is not an answer.
        doubts = ["sent", "unknown", "sent", "sent", "sent"]
        assert found == (expected if at_once or event[0] in ("text", "taken") else doubts)
        assert smtp.sessions == 2
        assert set(smtp.book.counts().values()) == {1}


@pytest.mark.parametrize("reply", ["what?", "354 go on"])
def test_answer_out_of_turn_is_a_doubt_about_one_mail(
    smtp: FakeSMTP, batch: Any, reply: str
) -> None:
    smtp.script = {("dot", 2): lambda: reply}
    assert batch(smtp, 4) == ["sent", "unknown", "sent", "sent"]
    assert smtp.sessions == 2


@pytest.mark.parametrize(
    "script",
    [
        # A function's word for a text is no refusal.
        {("DATA", 1): "354 go on\r\n250 queued", ("dot", 1): "554 5.7.1 spam"},
        {("DATA", 1): "354 go on\r\n554 no"},
        {("dot", 1): lambda: "250 OK\r\n250 thank you"},
    ],
)
def test_reply_too_many_is_taken_for_no_other(smtp: FakeSMTP, batch: Any, script: Any) -> None:
    smtp.script = {**script, ("RCPT", 3): "550 5.1.1 no such user"}
    found = batch(smtp, 4)
    taken = smtp.book.counts()
    for message, state in zip(Message.objects.order_by("pk"), found, strict=True):
        assert (state == "sent") == (message.pk in taken), (message.detail, found)
    assert set(taken.values()) <= {1}
    assert found.count("failed") <= 1
    assert "unknown" not in found


def test_announcement_that_is_half_refused_is_no_empty_mail(smtp: FakeSMTP, batch: Any) -> None:
    smtp.script = {("MAIL", 2): "550 5.7.1 not you"}
    assert batch(smtp, 3)[:2] == ["sent", "retry"]
    # To whom RCPT was accepted an empty text would have been a mail.
    assert smtp.turns == [["EHLO"], FIRST, NEXT]


def test_right_that_was_revoked_ends_it_before_the_text(smtp: FakeSMTP, messages: Any) -> None:
    ids = [message.pk for message in messages(smtp, 5)]

    def take_away() -> str:
        (key,) = redis_client().keys("handover:*")
        fates = revoke(UUID(key.decode().partition(":")[2]), ids)
        assert [fate and fate.outcome for fate in fates.values()] == [
            "accepted",
            "unknown",
            *[None] * 3,
        ]
        return "354 go on"

    smtp.script = {("DATA", 3): take_away}
    deliver_batch("transactional", limit=5)
    # What the worker knows for sure is recorded all the same.
    assert states() == ["sent", "sent", "queued", "queued", "queued"]
    assert smtp.texts == len(smtp.book.entries()) == 2
    assert smtp.sessions == 1


def test_journal_that_is_lost_ends_it_before_the_text(
    smtp: FakeSMTP, messages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages(smtp, 5)
    begin = Journal.begin
    begun: list[Any] = []

    def lost_at_the_third(self: Journal, ids: Any) -> list[bool]:
        begun.extend(ids)
        if len(begun) == 3:
            raise JournalLost
        return begin(self, ids)

    monkeypatch.setattr(Journal, "begin", lost_at_the_third)
    deliver_batch("transactional", limit=5)
    assert states() == ["sent", "sent", "queued", "queued", "queued"]
    assert smtp.texts == 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("target", [("everything", ""), ("provider", "smtp")])
def test_switch_thrown_in_the_middle_stops_what_is_only_announced(
    smtp: FakeSMTP, messages: Any, monkeypatch: pytest.MonkeyPatch, target: tuple[str, str]
) -> None:
    monkeypatch.setattr("delivery.turns.LOOK_SECONDS", 0.0)
    messages(smtp, 5)

    def throw() -> str:
        stop_sending(*target)
        connection.close()
        return "354 go on"

    smtp.script = {("DATA", 3): throw}
    deliver_batch("transactional", limit=5)
    assert states()[:2] == ["sent", "sent"]
    assert set(states()[2:]) <= {"queued", "held"}
    assert smtp.texts == len(smtp.book.entries()) == 2


def test_next_mail_is_not_announced_before_its_turn(smtp: FakeSMTP, messages: Any) -> None:
    messages(smtp, 3, rate_limit=2)
    deliver_batch("transactional", limit=3)
    assert states() == ["sent"] * 3
    # Two at once, and the third when the pace allows it.
    assert smtp.turns == [["EHLO"], FIRST, NEXT, ["dot"], FIRST, ["dot"]]


def test_connections_of_a_slow_server_share_the_batch(smtp: FakeSMTP, messages: Any) -> None:
    messages(smtp, 20, concurrency=4)

    def slowly() -> str:
        time.sleep(0.03)
        return "250 OK"

    smtp.script = {("dot", number): slowly for number in range(1, 21)}
    deliver_batch("transactional", limit=20)
    assert states() == ["sent"] * 20
    assert smtp.sessions > 1
    assert set(smtp.book.counts().values()) == {1}

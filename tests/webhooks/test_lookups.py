"""Messages in doubt, looked for in their providers' logs over real HTTP."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from delivery.explanations import timeline_of
from delivery.headers import message_id
from delivery.models import LookUp, Message, Provider
from delivery.providers import TRAITS
from delivery.services import mark_unknown_sent
from delivery.states import MessageState
from tests.delivery.crashing import environment
from tests.delivery.fakeesp import Answer
from tests.factories import MessageFactory
from tests.webhooks.accounts import DOMAIN, account
from tests.webhooks.fakelists import FakeLists, fake_lists
from webhooks.models import Poll
from webhooks.reconciliation.services import reconcile

pytestmark = pytest.mark.django_db

NOW = datetime.now(UTC)
TAKEN_AT = NOW - timedelta(minutes=10)


@pytest.fixture(autouse=True)
def _unhurried(settings: Any) -> None:
    # Both ends are in this process, and it may have to wait for its turn.
    settings.EMAIL_TIMEOUT = 60


def in_doubt(provider: Provider, **fields: Any) -> Message:
    """A message handed over ten minutes ago of which nobody knows."""
    message: Message = MessageFactory(
        **{
            "state": MessageState.UNKNOWN,
            "provider": provider,
            "route": TRAITS[provider.backend].backend,
            "sending_domain": DOMAIN,
            "handed_over_at": TAKEN_AT,
            **fields,
        }
    )
    return message


def _in_sendgrids(message: Message) -> dict[str, Any]:
    return {
        "to_email": message.email,
        "msg_id": f"esp/{message.pk}",
        "unique_args": {"message_uuid": str(message.pk)},
        "status": "processed",
        "last_event_time": TAKEN_AT.isoformat(),
    }


def _in_postmarks(message: Message) -> dict[str, Any]:
    return {
        "MessageID": "esp-1",
        "Status": "Sent",
        "ReceivedAt": TAKEN_AT.isoformat(),
        "Metadata": {"message_uuid": str(message.pk)},
    }


def _in_mailguns(message: Message) -> dict[str, Any]:
    written = message_id(message.pk, DOMAIN).strip("<>")
    return {
        "event": "accepted",
        "timestamp": TAKEN_AT.timestamp(),
        "recipient": message.email,
        "message": {"headers": {"message-id": written}},
        "user-variables": {"message_uuid": str(message.pk)},
    }


def _in_brevos(message: Message) -> dict[str, Any]:
    return {
        "email": message.email,
        "date": TAKEN_AT.isoformat(),
        "event": "requests",
        "messageId": "esp-1",
        "tag": str(message.pk),
    }


LOGS: dict[str, Callable[[Message], dict[str, Any]]] = {
    "sendgrid": _in_sendgrids,
    "postmark": _in_postmarks,
    "mailgun": _in_mailguns,
    "brevo": _in_brevos,
}
KINDS = sorted(LOGS)


def look_ups(server: FakeLists) -> int:
    """How often a log was searched."""
    logs = ("/messages", "/messages/outbound", "/events")
    return sum(path.endswith(logs) for path, _ in server.requests)


def make_due() -> None:
    LookUp.objects.update(due_at=Now())


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_that_is_found_counts_as_sent(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_lists(kind) as server:
        message = in_doubt(account(server, monkeypatch))
        server.log = [LOGS[kind](in_doubt(message.provider)), LOGS[kind](message)]
        reconcile(budget=60)
    message.refresh_from_db()
    assert (message.state, message.reason) == (MessageState.SENT, "")
    assert message.sent_at is not None
    assert abs(message.sent_at - TAKEN_AT) < timedelta(seconds=1)
    assert message.delivered_at is None
    assert (message.esp_id != "") == (kind != "sendgrid")
    assert message.look_up.result == LookUp.Result.FOUND


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_that_is_not_found_stays_in_doubt(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another's entry proves nothing about it, not even one to the same address."""
    with fake_lists(kind) as server:
        provider = account(server, monkeypatch)
        message = in_doubt(provider)
        other = in_doubt(provider, contact=message.contact, due_at=NOW, state=MessageState.SENT)
        server.log = [LOGS[kind](other)]
        reconcile(budget=60)
    message.refresh_from_db()
    assert message.state == MessageState.UNKNOWN
    assert (message.look_up.result, message.look_up.tries) == (LookUp.Result.NOT_FOUND, 1)
    moments = timeline_of(message, [], look_ups=[message.look_up])
    assert "In its log, 1 times so far: not found, which proves nothing" in moments[-1].text


@pytest.mark.parametrize("kind", KINDS)
def test_a_log_that_ignores_the_filter_proves_nothing(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_lists(kind) as server:
        provider = account(server, monkeypatch)
        message, other = in_doubt(provider), in_doubt(provider, state=MessageState.SENT)
        entry = LOGS[kind](other)
        everything = {"items": [entry], "Messages": [entry], "messages": [entry], "events": [entry]}
        server.script = [Answer(200, everything)]
        reconcile(budget=60)
    message.refresh_from_db()
    assert message.state == MessageState.UNKNOWN


@pytest.mark.parametrize(
    "detail",
    [
        Answer(404, {}),
        Answer(200, {}),
        Answer(200, {"unique_args": None}),
        Answer(200, {"unique_args": {"message_uuid": "nonsense"}}),
        Answer(200, {"unique_args": "not json"}),
        Answer(200, ["another shape"]),
        None,
    ],
)
def test_sendgrids_search_is_no_proof(
    detail: Answer | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may find any mail to the same person. That of the others would make one that was never
    sent count as sent: only what the mail found says of itself is proof."""
    with fake_lists("sendgrid") as server:
        provider = account(server, monkeypatch)
        message = in_doubt(provider)
        other = in_doubt(provider, contact=message.contact, state=MessageState.SENT)
        entry = _in_sendgrids(other)
        server.log = [entry]
        shown = {name: value for name, value in entry.items() if name != "unique_args"}
        server.script = [Answer(200, {"messages": [shown]}), *([detail] if detail else [])]
        reconcile(budget=60)
        assert server.requests[1][0] == f"/messages/esp%2F{other.pk}"
    message.refresh_from_db()
    assert message.state == MessageState.UNKNOWN
    assert message.look_up.result == LookUp.Result.NOT_FOUND


def test_sendgrids_own_mail_is_found_among_others_to_the_same_person(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with fake_lists("sendgrid") as server:
        provider = account(server, monkeypatch)
        message = in_doubt(provider)
        other = in_doubt(provider, contact=message.contact, state=MessageState.SENT)
        others, own = _in_sendgrids(other), _in_sendgrids(message)
        own["unique_args"] = json.dumps(own["unique_args"])
        server.script = [Answer(200, {"messages": [others, own]}), Answer(200, others)]
        server.script.append(Answer(200, own))
        reconcile(budget=60)
    message.refresh_from_db()
    assert message.state == MessageState.SENT


def test_a_mail_sendgrid_does_not_tell_about_uses_up_no_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with fake_lists("sendgrid") as server:
        message = in_doubt(account(server, monkeypatch))
        found = Answer(200, {"messages": [_in_sendgrids(message)]})
        server.script = [found, Answer(429, "", {"Retry-After": "600"})]
        reconcile(budget=60)
    message.refresh_from_db()
    assert message.state == MessageState.UNKNOWN
    assert (message.look_up.result, message.look_up.tries) == (LookUp.Result.NOT_TOLD, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_another_mail_to_the_same_person_is_no_proof_whatever_the_search_finds(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_lists(kind) as server:
        provider = account(server, monkeypatch)
        message = in_doubt(provider)
        other = in_doubt(provider, contact=message.contact, state=MessageState.SENT)
        entry = LOGS[kind](other)
        server.log = [entry]
        everything = {"items": [entry], "Messages": [entry], "messages": [entry], "events": [entry]}
        server.script = [Answer(200, everything)]
        reconcile(budget=60)
    message.refresh_from_db()
    assert message.state == MessageState.UNKNOWN


def test_mailguns_log_tells_what_became_of_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_lists("mailgun") as server:
        message = in_doubt(account(server, monkeypatch))
        accepted = _in_mailguns(message)
        delivered_at = TAKEN_AT + timedelta(minutes=1)
        server.log = [
            {**accepted, "event": "delivered", "timestamp": delivered_at.timestamp()},
            accepted,
        ]
        reconcile(budget=60)
    message.refresh_from_db()
    assert message.state == MessageState.SENT
    assert message.delivered_at is not None
    assert abs(message.delivered_at - delivered_at) < timedelta(seconds=1)
    assert message.esp_id == message_id(message.pk, DOMAIN)


def test_looking_comes_at_growing_distances_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_lists("postmark") as server:
        message = in_doubt(account(server, monkeypatch), handed_over_at=datetime.now(UTC))
        reconcile(budget=60)
        assert look_ups(server) == 0  # not in the first minutes
        pauses = []
        for _ in range(6):
            make_due()
            reconcile(budget=60)
            pauses.append(round((LookUp.objects.get().due_at - datetime.now(UTC)).total_seconds()))
        assert look_ups(server) == 4
    message.refresh_from_db()
    assert message.state == MessageState.UNKNOWN
    assert message.look_up.tries == 4
    assert [round(pause / 3600) for pause in pauses[:3]] == [1, 6, 24]


def test_a_provider_that_does_not_tell_is_left_alone_and_uses_up_no_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with fake_lists("postmark") as server:
        provider = account(server, monkeypatch)
        messages = [in_doubt(provider) for _ in range(5)]
        server.script = [Answer(429, "", {"Retry-After": "600"})]
        reconcile(budget=60)
        assert look_ups(server) == 1
        rows = list(LookUp.objects.all())
        assert {row.tries for row in rows} == {0}
        assert all(row.due_at - NOW > timedelta(seconds=590) for row in rows)
        assert sorted(row.result for row in rows) == ["", "", "", "", LookUp.Result.NOT_TOLD]
        server.log = [_in_postmarks(message) for message in messages]
        make_due()
        reconcile(budget=60)
    assert set(Message.objects.values_list("state", flat=True)) == {MessageState.SENT}


def test_an_account_without_the_paid_log_is_asked_four_times_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with fake_lists("sendgrid") as server:
        message = in_doubt(account(server, monkeypatch))
        Poll.objects.all().delete()
        for _ in range(6):
            server.script = [Answer(403, "")]
            make_due()
            reconcile(budget=60)
        assert look_ups(server) == 4
    row = LookUp.objects.get(message=message)
    assert row.result == LookUp.Result.NOT_TOLD
    assert "may not read this" in row.detail


@pytest.mark.parametrize("answer", [Answer(200, "<html>"), Answer(200, [1]), Answer(500)])
def test_nonsense_proves_nothing(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_lists("postmark") as server:
        message = in_doubt(account(server, monkeypatch))
        server.script = [answer]
        reconcile(budget=60)
    message.refresh_from_db()
    assert message.state == MessageState.UNKNOWN
    assert message.look_up.result == LookUp.Result.NOT_TOLD


def test_a_resend_that_ends_in_doubt_is_looked_up_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_lists("postmark") as server:
        message = in_doubt(account(server, monkeypatch))
        reconcile(budget=60)
        LookUp.objects.update(tries=4)
        Message.objects.update(attempts=2)
        reconcile(budget=60)
    row = LookUp.objects.get(message=message)
    assert (row.attempt, row.tries, row.result) == (2, 1, LookUp.Result.NOT_FOUND)


def test_what_an_operator_has_resolved_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_lists("postmark") as server:
        message = in_doubt(account(server, monkeypatch))
        reconcile(budget=60)
        mark_unknown_sent([message.pk])
        make_due()
        server.requests.clear()
        reconcile(budget=60)
        assert look_ups(server) == 0


def test_a_message_that_left_by_another_route_is_not_looked_up_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with fake_lists("postmark") as server:
        provider = account(server, monkeypatch)
        in_doubt(provider, route=TRAITS["sendgrid"].backend)
        reconcile(budget=60)
        assert look_ups(server) == 0
    assert not LookUp.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_kill_9_in_mid_search_is_made_good_by_the_next_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    victims: list[subprocess.Popen[bytes]] = []
    with fake_lists("postmark") as server:
        message = in_doubt(account(server, monkeypatch))
        server.log = [_in_postmarks(message)]
        server.before = lambda number: victims[0].kill() if number == 1 else None
        victims.append(
            subprocess.Popen(
                [sys.executable, "manage.py", "reconcile"],
                env=environment(broker="memory://"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        assert victims[0].wait(60) == -signal.SIGKILL
        row = LookUp.objects.get()
        assert (row.tries, row.last_at) == (1, None)
        assert Message.objects.get().state == MessageState.UNKNOWN
        make_due()
        reconcile(budget=60)
    assert Message.objects.get().state == MessageState.SENT


def test_a_batch_costs_the_same_queries_whatever_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_lists("postmark") as server:
        provider = account(server, monkeypatch)
        reconcile(budget=60)
        counts = []
        for size in (1, 15):
            server.log = [_in_postmarks(in_doubt(provider)) for _ in range(size)]
            with CaptureQueriesContext(connection) as captured:
                reconcile(budget=60)
            counts.append(len(captured))
    assert counts[0] == counts[1]
    assert Message.objects.filter(state=MessageState.SENT).count() == 16

"""What is left when workers die, and what the sweep makes of it."""

import fcntl
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import gettempdir
from uuid import UUID

import pytest
import redis

from common.clock import now
from common.ids import uuid7
from common.valkey import redis_client
from delivery import recovery, transitions
from delivery.engine import drain
from delivery.journal import Journal, open_journal, revoke
from delivery.models import Message, SandboxMail
from delivery.routes import SMTP as SMTP_ROUTE
from delivery.routes import route_of
from delivery.states import MessageState
from delivery.transitions import Departure, Settled
from delivery.verdicts import Outcome, Verdict
from tests.factories import MessageFactory, ProviderFactory, SenderFactory

pytestmark = pytest.mark.django_db

SMTP = {"key": "smtp", "backend": "smtp", "secret_env": "TEST_SMTP_URL"}
PAST = now() - timedelta(hours=1)


def dispatched(messages: list[Message], *, expired: bool = True) -> UUID:
    """The messages as a worker leaves them that died after committing `dispatching`."""
    handover_id = uuid7()
    lease = -60 if expired else 60
    claimed = transitions.claim(
        "transactional", owner="dead", lease_seconds=60, limit=50, crashed=False
    )
    assert len(claimed) == len(messages)
    attempts = transitions.dispatch(
        [
            Departure(
                m.pk,
                m.sender.provider_id,
                route_of(m.sender.provider).backend,
                m.email,
                m.email_normalized,
                "example.com",
                "other",
                b"",
            )
            for m in messages
        ],
        owner="dead",
        handover_id=handover_id,
        lease_seconds=lease,
    )
    assert set(attempts.values()) == {1}
    return handover_id


@pytest.fixture(autouse=True)
def _smtp_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SMTP_URL", "smtp://127.0.0.1:1")


def smtp_messages(count: int) -> list[Message]:
    sender = SenderFactory(provider=ProviderFactory(**SMTP))
    return MessageFactory.create_batch(count, sender=sender)


def states() -> dict[str, str]:
    return dict(Message.objects.values_list("dedupe_key", "state"))


def test_claimed_message_of_a_dead_worker_is_queued_again() -> None:
    MessageFactory()
    transitions.claim("transactional", owner="dead", lease_seconds=-1, limit=1, crashed=False)
    assert recovery.recover_claimed() == 1
    message = Message.objects.get()
    assert (message.state, message.crashes) == ("queued", 1)
    drain("transactional", budget=5)
    assert Message.objects.get().state == "sent"


def test_message_that_keeps_killing_workers_ends_in_the_dead_letters() -> None:
    MessageFactory()
    for crashes in range(3):
        transitions.claim(
            "transactional", owner="dead", lease_seconds=-1, limit=1, crashed=crashes > 0
        )
        recovery.recover_claimed()
    message = Message.objects.get()
    assert (message.state, message.reason, message.crashes) == ("dead", "crashed", 3)


def test_claim_of_a_living_worker_is_left_alone() -> None:
    MessageFactory()
    transitions.claim("transactional", owner="alive", lease_seconds=60, limit=1, crashed=False)
    assert recovery.recover_claimed() == 0
    assert Message.objects.get().state == "claimed"


def test_only_the_begun_message_of_a_dead_workers_batch_is_unknown() -> None:
    sent, refused, begun, untouched = messages = smtp_messages(4)
    journal = open_journal(dispatched(messages))
    assert journal is not None
    assert journal.begin([sent.pk, refused.pk, begun.pk]) == [True, True, True]
    journal.done(
        [
            (sent.pk, Verdict(Outcome.ACCEPTED, esp_id="x1")),
            (refused.pk, Verdict(Outcome.PERMANENT, "SMTP 550 no such user")),
        ]
    )
    journal.flush()
    recovery.recover()
    assert states() == {
        sent.dedupe_key: "sent",
        refused.dedupe_key: "failed",
        begun.dedupe_key: "unknown",
        untouched.dedupe_key: "queued",
    }
    assert Message.objects.get(pk=sent.pk).esp_id == "x1"


@pytest.mark.parametrize("entry", ["", "{", '{"outcome": "of a later version"}'])
def test_entry_that_cannot_be_read_leaves_one_message_in_doubt(entry: str) -> None:
    sent, odd = messages = smtp_messages(2)
    journal = open_journal(dispatched(messages))
    assert journal is not None
    journal.begin([sent.pk, odd.pk])
    journal.done([(sent.pk, Verdict(Outcome.ACCEPTED, esp_id="x1"))])
    journal.flush()
    redis_client().hset(journal.key, str(odd.pk), entry)
    recovery.recover()
    assert states() == {sent.dedupe_key: "sent", odd.dedupe_key: "unknown"}


def test_frozen_worker_finds_its_right_to_begin_revoked() -> None:
    messages = smtp_messages(2)
    handover_id = dispatched(messages)
    journal = open_journal(handover_id)
    assert journal is not None
    recovery.recover_dispatching()
    assert journal.begin([message.pk for message in messages]) == [False, False]


def test_flushed_journal_makes_the_batch_unknown() -> None:
    messages = smtp_messages(2)
    journal = open_journal(dispatched(messages))
    assert journal is not None
    redis_client().flushdb()
    # A worker that goes on writes into a journal that no longer proves its beginning.
    journal.begin([messages[0].pk])
    recovery.recover()
    assert set(states().values()) == {"unknown"}


# What is set here counts for every test that uses this server, also those of other processes.
@pytest.fixture(params=["always", "everysec"])
def log_of_valkey(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("delivery.journal._policy", None)  # what the server said a moment ago
    client = redis_client()
    port = client.connection_pool.connection_kwargs["port"]
    with (Path(gettempdir()) / f"valkey-{port}-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield from _synced(client, request.param)


def _synced(client: redis.Redis, policy: str) -> Iterator[str]:
    before = client.config_get("append*")
    client.config_set("appendonly", "yes")
    client.config_set("appendfsync", policy)
    yield policy
    client.config_set("appendonly", before["appendonly"])
    client.config_set("appendfsync", before["appendfsync"])


def test_journal_written_to_another_process_counts_if_that_one_synced(log_of_valkey: str) -> None:
    begun, untouched = messages = smtp_messages(2)
    handover_id = dispatched(messages)
    journal = open_journal(handover_id)
    assert journal is not None
    journal.begin([begun.pk])
    # What a server finds in its log after a restart: the same hash under another run id.
    redis_client().hset(f"handover:{handover_id}", "server", "f" * 40)
    recovery.recover()
    assert states() == {
        begun.dedupe_key: "unknown",
        untouched.dedupe_key: "queued" if log_of_valkey == "always" else "unknown",
    }


def test_journal_that_was_never_opened_proves_nothing() -> None:
    assert revoke(uuid7(), [uuid7()]).popitem()[1].outcome == Outcome.UNKNOWN
    assert Journal(uuid7()).begin([uuid7()]) == [True]


def test_slow_worker_resolves_its_own_unknown() -> None:
    (message,) = smtp_messages(1)
    dispatched([message])
    recovery.recover()
    assert Message.objects.get().state == "unknown"
    late = Settled(message.pk, 1, MessageState.SENT, esp_id="late")
    assert transitions.settle([late]) == {message.pk}
    assert Message.objects.get().state == "sent"


def test_outcome_of_an_older_attempt_changes_nothing() -> None:
    (message,) = smtp_messages(1)
    dispatched([message])
    Message.objects.update(attempts=2)
    assert transitions.settle([Settled(message.pk, 1, MessageState.SENT)]) == set()
    assert Message.objects.get().state == "dispatching"


@pytest.mark.parametrize(("delivered", "expected"), [(True, "sent"), (False, "queued")])
def test_sandbox_is_asked_what_it_took(delivered: bool, expected: str) -> None:
    message = MessageFactory()
    dispatched([message])
    if delivered:
        SandboxMail.objects.create(
            message=message, from_email="s@example.com", to_email=message.email, raw=b""
        )
    recovery.recover()
    assert Message.objects.get().state == expected


def test_unknown_over_smtp_stays_until_somebody_resolves_it() -> None:
    # The provider's route leads into the sandbox today; that says nothing about yesterday's mail.
    MessageFactory(state="unknown", provider=ProviderFactory(), route=SMTP_ROUTE)
    recovery.recover()
    assert Message.objects.get().state == "unknown"


def test_message_given_back_after_feedback_proved_it_is_sent() -> None:
    (message,) = smtp_messages(1)
    dispatched([message], expired=False)
    Message.objects.update(opened_at=PAST)
    transitions.release([message.pk], MessageState.DISPATCHING, owner="dead")
    assert Message.objects.get().state == "sent"


def test_doubt_about_a_mail_that_feedback_proved_is_none() -> None:
    (message,) = smtp_messages(1)
    dispatched([message])
    Message.objects.update(delivered_at=PAST)
    recovery.recover()
    assert Message.objects.get().state == "sent"


def test_hold_whose_switch_is_gone_is_released() -> None:
    MessageFactory(state="held", reason="campaign_paused", dedupe_key="switch")
    MessageFactory(state="held", reason="gate_failed", dedupe_key="other")
    recovery.recover()
    assert states() == {"switch": "queued", "other": "held"}

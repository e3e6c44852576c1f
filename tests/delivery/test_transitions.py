"""The moves of a message's state, against what others do to the same rows."""

import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import msgspec
import pytest
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from common.ids import uuid7
from common.postgres import database_time
from delivery import circuits, engine, recovery, statements, transitions
from delivery.connections import pool
from delivery.engine import drain
from delivery.models import Message, SandboxMail
from delivery.transitions import Departure, Settled
from tests.delivery.fakeesp import Answer, fake_esp
from tests.delivery.plans import most_read, multiply
from tests.factories import MessageFactory, ProviderFactory, SenderFactory
from webhooks.feedback import Feedback, FeedbackKind, apply_feedback

pytestmark = pytest.mark.django_db


def delivered(message: Message) -> None:
    """The provider tells that it has the message."""
    told = Feedback(
        FeedbackKind.DELIVERED, database_time(), "sandbox", message_uuid=message.pk, esp_id="e1"
    )
    apply_feedback([told])


@pytest.mark.parametrize(
    "give_up",
    [
        lambda pk: transitions.put_off({pk: 0.0}, owner="worker"),
        lambda pk: transitions.give_back_failed([pk], owner="worker"),
        lambda pk: transitions.release([pk], transitions.MessageState.DISPATCHING, owner="worker"),
    ],
    ids=["put off", "given back", "released"],
)
def test_message_the_provider_has_is_sent_whoever_gives_it_up(
    give_up: Callable[[UUID], set[UUID]],
) -> None:
    message = MessageFactory(state="dispatching", route=recovery.SANDBOX)
    delivered(message)
    assert give_up(message.pk) == {message.pk}
    message.refresh_from_db()
    assert (message.state, message.reason, message.lease_owner) == ("sent", "", "")
    assert message.sent_at is not None
    drain("transactional", budget=2)
    assert not SandboxMail.objects.exists()


def test_message_with_a_proof_is_never_claimed() -> None:
    proven, other = MessageFactory(), MessageFactory()
    Message.objects.filter(pk=proven.pk).update(delivered_at=Now(), reason="")
    claimed = transitions.claim(
        "transactional", owner="w", lease_seconds=60, limit=5, crashed=False
    )
    assert [message.pk for message in claimed] == [other.pk]
    proven.refresh_from_db()
    assert (proven.state, proven.lease_owner, proven.lease_until) == ("sent", "", None)
    assert proven.sent_at is not None


@pytest.fixture
def _postmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TEST_SERVER_TOKEN", "secret-token")
    yield
    pool.close()


@pytest.mark.usefixtures("_postmark")
def test_mail_that_may_be_resent_is_not_once_its_acceptance_is_proven(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    config = settings.EMAILAUTO
    on_unknown = msgspec.structs.replace(config.provider.on_unknown, transactional="resend")
    provider_config = msgspec.structs.replace(config.provider, on_unknown=on_unknown)
    settings.EMAILAUTO = msgspec.structs.replace(config, provider=provider_config)
    with fake_esp("postmark") as esp:
        provider = ProviderFactory(
            key="postmark",
            backend="postmark",
            api_url=esp.url,
            secret_env="TEST_SERVER_TOKEN",
            concurrency=1,
        )
        sender = SenderFactory(provider=provider)
        doubtful = MessageFactory(sender=sender)
        esp.script = [Answer(500, "oops", takes=True)]
        drain("transactional", budget=2)
        doubtful.refresh_from_db()
        assert doubtful.state == "retry"
        # Both leave in one batch; the provider asks for a pause at the first, and its webhook
        # about the second comes before that is given back.
        first = MessageFactory(sender=sender)
        Message.objects.filter(pk=first.pk).update(due_at=F("created_at"))
        Message.objects.filter(pk=doubtful.pk).update(due_at=Now())
        esp.script = [Answer(429, {"ErrorCode": 429}, {"Retry-After": "1"})]
        note = circuits.note

        def note_late(handed: Any) -> bool:
            delivered(doubtful)
            return note(handed)

        with monkeypatch.context() as patched:
            patched.setattr(engine.circuits, "note", note_late)
            drain("transactional", budget=0.01)
        Message.objects.filter(state__in=["queued", "retry"]).update(due_at=Now())
        circuits.close(provider)
        drain("transactional", budget=3)
        assert esp.ledger == {doubtful.pk: 1, first.pk: 1}


def test_claiming_what_crashed_looks_at_nothing_else() -> None:
    MessageFactory.create_batch(2)
    multiply(5_000)
    some = Message.objects.order_by("pk").values("pk")[:2]
    Message.objects.filter(pk__in=some).update(crashes=1)
    parameters = {"stream": "transactional", "owner": "w", "lease": 60, "limit": 1}
    assert most_read(statements.CLAIM_CRASHED, parameters) < 50
    assert most_read(statements.CLAIM_FRESH, {**parameters, "limit": 50}) < 500


def _dispatch(messages: list[Message]) -> None:
    departures = [
        Departure(m.pk, m.sender.provider_id, "x", m.email, m.email_normalized, "d", "other", b"")
        for m in messages
    ]
    transitions.dispatch(departures, owner="worker", handover_id=uuid7(), lease_seconds=60)


def _settle(messages: list[Message]) -> None:
    sent = transitions.MessageState.SENT
    transitions.settle([Settled(m.pk, m.attempts, sent) for m in messages])


def _put_off(messages: list[Message]) -> None:
    transitions.put_off({m.pk: 1.0 for m in messages}, owner="worker")


@pytest.mark.unaudited("its providers are not real")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("move", "state"),
    [(_dispatch, "claimed"), (_settle, "dispatching"), (_put_off, "dispatching")],
)
def test_moves_and_feedback_lock_in_one_order(
    move: Callable[[list[Message]], None], state: str
) -> None:
    messages = sorted(MessageFactory.create_batch(2, state=state), key=lambda m: m.pk)
    errors: list[Exception] = []
    started = threading.Event()

    def in_thread(act: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                with transaction.atomic():
                    act()
            except Exception as error:  # noqa: BLE001 - what the test is about
                errors.append(error)
            finally:
                connection.close()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def feedback() -> None:
        started.wait(5)
        told = [
            Feedback(FeedbackKind.DELIVERED, database_time(), "x", message_uuid=m.pk)
            for m in messages
        ]
        apply_feedback(told)

    with _slow_updates():
        first = in_thread(lambda: (started.set(), move(messages[::-1]))[1])
        second = in_thread(feedback)
        first.join()
        second.join()
    assert errors == []


def _slow_updates() -> Any:
    """Each row that is written takes its time, so that the two are sure to meet."""

    class Slow:
        def __enter__(self) -> None:
            with connection.cursor() as cursor:
                cursor.execute(
                    "CREATE FUNCTION slow() RETURNS trigger AS $$ BEGIN PERFORM pg_sleep(0.4);"
                    " RETURN NEW; END $$ LANGUAGE plpgsql;"
                    "CREATE TRIGGER slow BEFORE UPDATE ON delivery_message FOR EACH ROW"
                    " EXECUTE FUNCTION slow()"
                )

        def __exit__(self, *_: object) -> None:
            with connection.cursor() as cursor:
                cursor.execute("DROP TRIGGER slow ON delivery_message; DROP FUNCTION slow()")

    return Slow()

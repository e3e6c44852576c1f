"""Calls with many mails of which nobody knows what became: all in doubt, together and at most so
many; where calls have keys, made again at once."""

import os
import signal
from collections import Counter
from typing import Any

import msgspec
import pytest

from delivery.engine import drain
from delivery.models import Circuit, Message, Provider
from delivery.providers import TRAITS
from tests.delivery import crashing, fakeesp
from tests.delivery.batchesp import KEYED, KINDS, taking
from tests.delivery.fakeesp import Answer, fake_esp
from tests.delivery.test_batches import (
    _set_up,  # noqa: F401 - the same
    deliver,
    keyed_kind,
    newsletter,
    sizes,
    states,
    time_passes,
    unkeyed_kind,
)
from tests.delivery.test_crashes import end_of, others_take_over

pytestmark = pytest.mark.django_db

DOUBTS = {
    "no answer": Answer(takes=True, seconds=30),
    "an error": Answer(500, "oops", takes=True),
    "a reset": Answer(takes=True, do=fakeesp.reset),
    "half the body": Answer(at_once=fakeesp.read_half_and_reset),
    "a gateway's error": Answer(502, "<html>bad gateway", takes=True),
}


@unkeyed_kind
@pytest.mark.parametrize("name", DOUBTS)
def test_what_a_call_without_an_answer_carried_is_in_doubt_together(
    kind: str, name: str, settings: Any
) -> None:
    if name == "no answer":
        settings.EMAIL_TIMEOUT = 2
    with fake_esp(kind) as esp:
        esp.usual = taking(kind)
        esp.script = [DOUBTS[name]]
        newsletter(esp, kind, 9)
        for _ in range(3):
            deliver()
            time_passes()
        assert sizes_known(esp, kind) <= [9]
        assert len(esp.requests) == 1
        assert set(esp.ledger.values()) <= {1}
    assert states() == {"unknown": 9}
    # One call, however many mails it carried.
    assert Circuit.objects.get().failures == 1


def sizes_known(esp: Any, kind: str) -> list[int]:
    return [] if not esp.requests[0][1] else sizes(esp, kind)


UNREAD = {
    "half an answer": Answer(200, '{"data": [', takes=True),
    "an answer about nobody": Answer(201, '{"data": [], "messageIds": []}', takes=True),
}


@keyed_kind
@pytest.mark.parametrize("name", [*DOUBTS, *UNREAD])
def test_call_with_a_key_is_made_again_at_once_and_is_the_same(
    kind: str, name: str, settings: Any
) -> None:
    if name == "no answer":
        settings.EMAIL_TIMEOUT = 2
    with fake_esp(kind) as esp:
        esp.usual = taking(kind)
        esp.script = [{**DOUBTS, **UNREAD}[name]] * 2
        messages = newsletter(esp, kind, 9)
        deliver()
        assert len(esp.requests) == 3
        keys = {headers.get("Idempotency-Key") for headers, _ in esp.requests}
        assert len(keys) == 1
        assert len({body for _, body in esp.requests if body}) == 1
        assert dict(esp.ledger) == {message.pk: 1 for message in messages}
    assert states() == {"sent": 9}


@keyed_kind
def test_mails_of_a_call_that_stays_without_an_answer_are_not_sent_alone(kind: str) -> None:
    with fake_esp(kind) as esp:
        esp.usual = taking(kind)
        esp.script = [Answer(500, "oops", takes=True) for _ in range(3)]
        newsletter(esp, kind, 9)
        for _ in range(3):
            deliver()
            time_passes()
        # Alone they would have other keys, and be taken twice.
        assert len(esp.requests) == 3
        assert set(esp.ledger.values()) == {1}
    assert states() == {"unknown": 9}


def _leaves(handler: Any) -> None:
    """Whoever calls again finds nobody."""
    handler.server.shutdown()
    handler.server.server_close()
    fakeesp.reset(handler)


TURNED_AWAY = {
    "slower": [Answer(502, "oops", takes=True), Answer(429, "slower", {"Retry-After": "30"})],
    "later": [Answer(502, "oops", takes=True), Answer(503, "later", {"Retry-After": "30"})],
    "no key": [Answer(takes=True, do=fakeesp.reset), Answer(401, "who are you?")],
    "nobody": [Answer(takes=True, do=_leaves)],
    "refused": [Answer(502, "oops", takes=True), Answer(422, "what?"), Answer(422, "what?")],
}


@keyed_kind
@pytest.mark.parametrize("how", TURNED_AWAY)
def test_repeated_call_that_is_turned_away_leaves_the_first_in_doubt(kind: str, how: str) -> None:
    with fake_esp(kind) as esp:
        esp.usual = taking(kind)
        esp.script = list(TURNED_AWAY[how])
        newsletter(esp, kind, 9)
        deliver()
        assert states() == {"unknown": 9}
        if how != "nobody":
            time_passes()
            deliver()
        assert set(esp.ledger.values()) == {1}
        keys = {headers.get("Idempotency-Key") for headers, _ in esp.requests}
        assert len(keys) == 1
    # One call, however many mails it carried.
    assert Circuit.objects.get().failures <= 1


@keyed_kind
@pytest.mark.parametrize("how", ["slower", "later", "no key", "nobody"])
def test_what_turns_a_repeated_call_away_holds_for_the_provider(kind: str, how: str) -> None:
    with fake_esp(kind) as esp:
        esp.usual = taking(kind)
        esp.script = list(TURNED_AWAY[how])
        newsletter(esp, kind, 18, batch_size=9)
        deliver()
        assert len(esp.requests) == len(TURNED_AWAY[how])
    assert states()["unknown"] == 9
    assert states()["sent"] == 0
    if how != "nobody":
        # What it said last is why it is left alone.
        assert str(TURNED_AWAY[how][-1].status) in Circuit.objects.get().reason


@pytest.mark.audited(except_={"I3"}, why="twice is what was asked for")
@keyed_kind
def test_whoever_prefers_twice_gets_it_a_few_times_at_most(kind: str, settings: Any) -> None:
    config = settings.EMAILAUTO
    on_unknown = msgspec.structs.replace(config.provider.on_unknown, marketing="resend")
    provider = msgspec.structs.replace(config.provider, on_unknown=on_unknown)
    settings.EMAILAUTO = msgspec.structs.replace(config, provider=provider)
    with fake_esp(kind) as esp:
        newsletter(esp, kind, 2)
        for _ in range(9):
            esp.script = list(TURNED_AWAY["slower"])
            deliver()
            time_passes()
            esp.forget_keys()  # in other company the call has another one
        assert max(esp.ledger.values()) <= settings.EMAILAUTO.provider.retry.max_attempts
    assert states() == {"unknown": 2}


@keyed_kind
def test_receipt_is_still_repeated_under_its_own_key(kind: str) -> None:
    with fake_esp(kind) as esp:
        newsletter(esp, kind, 1)
        Message.objects.update(stream="transactional")
        esp.script = [Answer(500, "oops", takes=True)]
        drain("transactional", budget=5)
        assert states() == {"retry": 1}
        time_passes()
        drain("transactional", budget=5)
        assert len(esp.requests) == 2
        assert set(esp.ledger.values()) == {1}
    assert states() == {"sent": 1}


@pytest.mark.audited(except_={"I10"}, why="the handing over is made to fail")
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_begun_when_an_error_ended_it_is_in_doubt_and_not_sent_again(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unforeseen(*_: Any) -> bool:
        raise RuntimeError("nobody has thought of this")

    with fake_esp(kind) as esp:
        esp.script = [Answer(422, "what?", takes=True)]
        newsletter(esp, kind, 4)
        with monkeypatch.context() as patched:
            patched.setattr("delivery.offering._may_be_anothers", unforeseen)
            deliver()
        time_passes()
        deliver()
        assert len(esp.requests) == 1
        assert set(esp.ledger.values()) == {1}
    assert states() == {"unknown": 4}
    assert "hand-over lane ended" in caplog.text


@pytest.mark.parametrize("kind", ["postmark", "mailjet"])
def test_doubt_is_as_large_as_a_call_at_most(kind: str, settings: Any) -> None:
    settings.EMAIL_TIMEOUT = 2
    with fake_esp(kind) as esp:
        esp.usual = taking(kind)
        esp.script = [Answer(takes=True, seconds=30)]
        newsletter(esp, kind, 40, batch_size=10, concurrency=1)
        for _ in range(3):
            deliver()
            time_passes()
        assert set(esp.ledger.values()) == {1}
        assert len(esp.ledger) == 40
    assert states() == {"unknown": 10, "sent": 30}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_was_not_reached_is_in_doubt(kind: str) -> None:
    with fake_esp(kind) as esp:
        esp.usual = taking(kind)
        newsletter(esp, kind, 9, api_url="http://127.0.0.1:1")
        deliver()
        assert states()["unknown"] == 0
        Provider.objects.update(api_url=esp.url)
        time_passes()
        deliver()
        assert set(esp.ledger.values()) == {1}
    assert states() == {"sent": 9}


@pytest.mark.django_db(transaction=True)
@pytest.mark.xdist_group("crashes")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("takes", [True, False])
def test_k11_killed_during_a_call_leaves_its_mails_in_doubt_and_no_others(
    kind: str, takes: bool
) -> None:
    with fake_esp(kind) as esp:
        esp.usual = taking(kind)
        newsletter(esp, kind, 20, batch_size=5, concurrency=1)

        def kill(_: Any) -> None:
            os.kill(process.pid, signal.SIGKILL)

        esp.script = [taking(kind), Answer(takes=takes, do=kill)]
        process = crashing.start("", stream="marketing")
        assert end_of(process) == -signal.SIGKILL
        found = others_take_over("marketing")
        assert found == Counter(sent=15, unknown=5)
        assert set(esp.ledger.values()) == {1}
        assert len(esp.ledger) == (20 if takes else 15)
        sent = set(Message.objects.filter(state="sent").values_list("pk", flat=True))
        assert sent <= set(esp.ledger)


def test_every_bound_is_within_the_providers_limit() -> None:
    for traits in TRAITS.values():
        if traits.batch is None:
            assert traits.no_batch
        else:
            assert 1 <= traits.batch.in_doubt <= traits.batch.messages
            assert not traits.no_batch
    assert {kind for kind, traits in TRAITS.items() if traits.batch} == set(KINDS)
    assert {k for k in KINDS if TRAITS[k].idempotent_seconds} == set(KEYED)

"""Mail that a provider may have: made again under its key where there are keys (E19, E20), and
never forgotten, failed or taken elsewhere."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from django.db.models.functions import Now

from delivery import recovery
from delivery.models import Message, Provider
from delivery.services import replay_messages, resend_unknown, resume_sending, stop_sending
from tests.delivery.fakeesp import Answer, FakeESP, fake_esp
from tests.delivery.test_esp_faults import (
    _set_up,  # noqa: F401 - the same
    deliver,
    messages_through,
    states,
    time_passes,
)
from tests.factories import ProviderFactory

pytestmark = pytest.mark.django_db


def test_e19_mail_that_is_not_the_same_any_more_is_not_sent_under_the_old_key() -> None:
    with fake_esp("resend") as esp:
        (message,) = messages_through(esp.url, backend="resend")
        esp.script = [Answer(500, "oops", takes=True)]
        deliver()
        message.sender.name = "Another name"
        message.sender.save()
        time_passes()
        deliver()
        assert len(esp.requests) == 1
    assert states() == ["unknown"]


def test_e20_nothing_is_repeated_after_the_keys_time() -> None:
    with fake_esp("resend") as esp:
        messages_through(esp.url, backend="resend")
        esp.script = [Answer(500, "oops", takes=True)]
        deliver()
        Message.objects.update(replay_until=Now() - timedelta(seconds=1))
        time_passes()
        deliver()
        assert len(esp.requests) == 1
    assert states() == ["unknown"]


@pytest.mark.parametrize("answer", [Answer(422, "no"), Answer(400, "suppressed")])
def test_doubt_stays_when_the_repeated_call_is_refused(answer: Answer) -> None:
    with fake_esp("resend") as esp:
        messages_through(esp.url, backend="resend")
        esp.script = [Answer(500, "oops", takes=True), answer]
        for _ in range(3):
            deliver()
            time_passes()
        assert len(esp.requests) == 2
    assert states() == ["unknown"]


def test_doubt_stays_when_the_tries_are_used_up() -> None:
    with fake_esp("resend") as esp:
        messages_through(esp.url, backend="resend")
        esp.script = [Answer(500, "oops", takes=True) for _ in range(9)]
        for _ in range(9):
            deliver()
            time_passes()
        assert len(esp.requests) == 3
    assert states() == ["unknown"]


def test_doubt_stays_when_the_gate_says_no_meanwhile() -> None:
    with fake_esp("resend") as esp:
        (message,) = messages_through(esp.url, backend="resend")
        esp.script = [Answer(500, "oops", takes=True)]
        deliver()
        message.contact.is_active = False
        message.contact.save()
        time_passes()
        deliver()
        assert len(esp.requests) == 1
    assert states() == ["unknown"]
    assert "contact_inactive" in Message.objects.get().detail


def test_worker_that_died_during_a_call_to_an_idempotent_provider_is_made_up_for() -> None:
    with fake_esp("resend") as esp:
        (message,) = messages_through(esp.url, backend="resend")
        esp.script = [Answer(takes=True, status=200, body={"id": "esp-1"})]
        deliver()
        # As its worker's death before recording left it, with a journal that is lost.
        Message.objects.update(
            state="dispatching", esp_id="", sent_at=None, lease_until=Now() - timedelta(seconds=1)
        )
        recovery.recover()
        assert states() == ["retry"]
        time_passes()
        deliver()
        keys = {headers["Idempotency-Key"] for headers, _ in esp.requests}
        assert keys == {str(message.pk)}
    assert states() == ["sent"]


def set_on_unknown(settings: Any, choice: str) -> None:
    config = settings.EMAILAUTO
    on_unknown = msgspec.structs.replace(config.provider.on_unknown, transactional=choice)
    provider = msgspec.structs.replace(config.provider, on_unknown=on_unknown)
    settings.EMAILAUTO = msgspec.structs.replace(config, provider=provider)


@pytest.mark.parametrize(
    ("choice", "state", "calls"), [("keep", "unknown", 1), ("resend", "sent", 2)]
)
def test_stream_may_prefer_twice_to_not_at_all(
    esp: FakeESP, settings: Any, choice: str, state: str, calls: int
) -> None:
    set_on_unknown(settings, choice)
    messages_through(esp.url)
    esp.script = [Answer(500, "oops")]
    for _ in range(3):
        deliver()
        time_passes()
    assert states() == [state]
    assert len(esp.requests) == calls


@pytest.fixture
def _prefers_twice(settings: Any) -> None:
    set_on_unknown(settings, "resend")


@pytest.mark.usefixtures("_prefers_twice")
@pytest.mark.parametrize("status", [422, 425])
def test_doubt_stays_when_what_was_sent_again_is_not_taken(esp: FakeESP, status: int) -> None:
    (message,) = messages_through(esp.url)
    esp.script = [Answer(500, "oops", takes=True), *[Answer(status, "no")] * 5]
    for _ in range(5):
        deliver()
        time_passes()
    assert states() == ["unknown"]
    assert replay_messages([message.pk]) == 0


def test_what_was_found_not_to_be_taken_and_is_refused_then_has_failed(esp: FakeESP) -> None:
    (message,) = messages_through(esp.url)
    esp.script = [Answer(500, "oops"), Answer(422, "no")]
    deliver()
    assert resend_unknown([message.pk]) == 1
    deliver()
    assert states() == ["failed"]


@pytest.mark.usefixtures("_prefers_twice")
def test_doubt_stays_when_what_was_sent_again_kills_its_workers(esp: FakeESP) -> None:
    messages_through(esp.url)
    esp.script = [Answer(500, "oops", takes=True)]
    deliver()
    assert states() == ["retry"]
    for _ in range(3):
        Message.objects.update(state="claimed", lease_until=Now() - timedelta(seconds=1))
        recovery.recover()
    assert states() == ["unknown"]


def doubtful_through(esp: FakeESP, kind: str = "resend", **provider: Any) -> Message:
    """A message that the provider has taken and answered with an error."""
    (message,) = messages_through(esp.url, backend=kind, **provider)
    esp.script = [Answer(500, "oops", takes=True)]
    deliver()
    message.refresh_from_db()
    assert (message.state, message.reason) == ("retry", "outcome_unknown")
    return message


def test_keys_time_counts_from_the_hand_over_however_late_the_recovery_comes() -> None:
    with fake_esp("brevo") as esp:
        messages_through(esp.url, backend="brevo")
        deliver()
        # Its worker died before recording, and the machine was down for hours.
        Message.objects.update(
            state="dispatching",
            esp_id="",
            sent_at=None,
            handed_over_at=Now() - timedelta(hours=5),
            lease_until=Now() - timedelta(hours=5),
        )
        recovery.recover()
        time_passes()
        deliver()
        assert len(esp.requests) == 1
    assert states() == ["unknown"]


@pytest.mark.audited(except_={"I3"}, why="no row can become what the replay is to refuse here")
def test_doubt_does_not_die_of_crashes_and_is_not_replayed() -> None:
    with fake_esp("resend") as esp:
        message = doubtful_through(esp)
        for _ in range(3):
            Message.objects.update(state="claimed", lease_until=Now() - timedelta(seconds=1))
            recovery.recover()
        assert states() == ["unknown"]
        assert replay_messages([message.pk]) == 0
        Message.objects.update(state="dead")
        assert replay_messages([message.pk]) == 0


def test_doubt_is_not_taken_to_another_backend() -> None:
    with fake_esp("resend") as esp:
        message = doubtful_through(esp)
        with fake_esp("postmark") as other:
            Provider.objects.update(backend="postmark", api_url=other.url)
            time_passes()
            deliver()
            assert other.requests == []
    message.refresh_from_db()
    assert (message.state, message.reason) == ("unknown", "outcome_unknown")


def test_doubt_waits_for_a_provider_that_cannot_be_used_and_is_not_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with fake_esp("resend") as esp, fake_esp("postmark") as mate:
        message = doubtful_through(esp, pool="main")
        fields = {"backend": "postmark", "secret_env": "OTHER_KEY", "pool": "main"}
        ProviderFactory(key="mate", api_url=mate.url, **fields)
        monkeypatch.setenv("OTHER_KEY", "k")
        monkeypatch.delenv("TEST_KEY")
        time_passes()
        deliver()
        message.refresh_from_db()
        assert message.state == "queued"
        assert message.replay_until is not None
        # Promised and never begun: its worker died, the journal proves it.
        Message.objects.update(state="dispatching", lease_until=Now() - timedelta(seconds=1))
        monkeypatch.setattr("delivery.recovery.revoke", lambda _, ids: dict.fromkeys(ids))
        recovery.recover()
        message.refresh_from_db()
        assert message.replay_until is not None
        time_passes()
        deliver()
        assert mate.requests == []


@pytest.mark.parametrize("target", [("everything", ""), ("provider", "esp")])
def test_switch_of_a_moment_does_not_end_a_doubt_that_can_be_cleared(
    target: tuple[str, str],
) -> None:
    with fake_esp("resend") as esp:
        doubtful_through(esp)
        stop_sending(*target)
        time_passes()
        deliver()
        assert states() == ["queued"]
        resume_sending(*target)
        time_passes()
        deliver()
    assert states() == ["sent"]

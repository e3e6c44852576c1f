"""The fault catalogue's rows about providers and the network (E01–E24): whatever a provider does
to a call, it gets a mail at most once, and nothing is lost."""

import json
import socket
import ssl
import threading
import time
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import trustme
from django.db import OperationalError
from django.db.models import F
from django.db.models.functions import Now

from delivery import circuits, recovery
from delivery.backends import client as client_module
from delivery.engine import deliver_batch, drain
from delivery.models import Attempt, Circuit, Message, Provider
from delivery.services import replay_messages, resume_sending, stop_sending
from tests.delivery import fakeesp
from tests.delivery.fakeesp import Answer, FakeESP, fake_esp
from tests.factories import MessageFactory, ProviderFactory, SenderFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _set_up(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setenv("TEST_KEY", "a key")
    settings.EMAIL_TIMEOUT = 1


@pytest.fixture
def esp() -> Any:
    with fake_esp() as server:
        yield server


def messages_through(url: str, count: int = 1, **provider: Any) -> list[Message]:
    fields = {"key": "esp", "backend": "postmark", "api_url": url, "secret_env": "TEST_KEY"}
    sender = SenderFactory(provider=ProviderFactory(**{**fields, **provider}))
    return MessageFactory.create_batch(count, sender=sender)


def deliver() -> None:
    drain("transactional", budget=5)


def states() -> list[str]:
    return list(Message.objects.order_by("pk").values_list("state", flat=True))


def time_passes() -> None:
    """Whatever waits is due, whatever pauses is over."""
    Message.objects.filter(state__in=("retry", "queued")).update(due_at=Now())
    past = Now() - timedelta(seconds=1)
    Circuit.objects.filter(open_until__isnull=False).update(open_until=past)
    Circuit.objects.filter(slow_until__isnull=False).update(slow_until=past)


# --- Answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["30", "-5", "99999999", "soon", "Fri, 99 Foo 2026 9:9:9 GMT"])
def test_e01_e02_told_to_slow_down_it_does_and_no_attempt_counts(esp: FakeESP, header: str) -> None:
    messages_through(esp.url, 5)
    esp.script = [Answer(429, "slow down", {"Retry-After": header})]
    deliver()
    # The others were not even tried.
    assert len(esp.requests) == 1
    assert sorted(states()) == ["queued"] * 4 + ["retry"]
    assert set(Message.objects.values_list("failures", flat=True)) == {0}
    deliver()
    assert len(esp.requests) == 1
    time_passes()
    deliver()
    assert states() == ["sent"] * 5
    assert set(esp.ledger.values()) == {1}


def test_e03_many_workers_do_not_storm_a_provider_that_asked_for_a_pause(esp: FakeESP) -> None:
    messages_through(esp.url, 60)
    esp.script = [Answer(429, "slow down", {"Retry-After": "60"}) for _ in range(60)]
    for _ in range(20):
        deliver_batch("transactional", limit=3)
    assert len(esp.requests) == 1


@pytest.mark.parametrize("takes", [True, False])
def test_e04_e05_server_error_is_a_doubt_and_is_not_repeated(esp: FakeESP, takes: bool) -> None:
    (message,) = messages_through(esp.url)
    esp.script = [Answer(500, "<html>oops", takes=takes)]
    for _ in range(3):
        deliver()
        time_passes()
    assert states() == ["unknown"]
    assert esp.ledger[message.pk] == int(takes)


@pytest.mark.parametrize(
    "body",
    ["", "not json", '{"MessageID": "x', "<html>fine</html>", '{"a": 1}', '{"ErrorCode": null}'],
)
def test_e09_e10_success_that_cannot_be_read_is_success(esp: FakeESP, body: str) -> None:
    (message,) = messages_through(esp.url)
    esp.script = [Answer(200, body, takes=True)]
    deliver()
    deliver()
    assert states() == ["sent"]
    assert esp.ledger == {message.pk: 1}


def test_e13_redirect_is_not_followed(esp: FakeESP) -> None:
    with fake_esp() as elsewhere:
        for status in (301, 302, 307, 308):
            esp.script.append(Answer(status, "", {"Location": f"{elsewhere.url}/email"}))
        messages_through(esp.url)
        for _ in range(4):
            deliver()
            time_passes()
        assert elsewhere.requests == []
    assert len(esp.requests) == 4
    assert states() == ["retry"]


# --- Connections ---------------------------------------------------------------------------------


def test_e06_answer_that_does_not_come_is_a_doubt(esp: FakeESP) -> None:
    (message,) = messages_through(esp.url)
    esp.script = [Answer(takes=True, seconds=30)]
    deliver()
    assert states() == ["unknown"]
    assert esp.ledger == {message.pk: 1}


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        (Answer(at_once=fakeesp.reset), 0),
        (Answer(at_once=fakeesp.read_half_and_reset), 0),
        (Answer(do=fakeesp.reset), 0),
        (Answer(do=fakeesp.reset, takes=True), 1),
    ],
    ids=["before the body", "half-way", "after it", "after it was taken"],
)
def test_e07_reset_connection_is_a_doubt(esp: FakeESP, answer: Answer, taken: int) -> None:
    messages_through(esp.url)
    esp.script = [answer]
    for _ in range(3):
        deliver()
        time_passes()
    assert states() == ["unknown"]
    assert len(esp.requests) == 1
    assert sum(esp.ledger.values()) == taken


def test_e08_connection_is_kept_and_one_that_was_closed_meanwhile_is_noticed(
    esp: FakeESP,
) -> None:
    first, *_ = messages_through(esp.url, 3, concurrency=1)
    deliver()
    assert esp.connections == 1
    esp.usual.headers = {**esp.usual.headers, "Connection": "close"}
    MessageFactory.create_batch(3, sender=first.sender)
    deliver()
    assert states() == ["sent"] * 6
    assert set(esp.ledger.values()) == {1}
    assert esp.connections > 1


@pytest.mark.parametrize(
    "text",
    [
        b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 400,
        b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n" + b"x" * 400,
    ],
    ids=["head", "body"],
)
def test_e11_answer_that_drips_ends_by_the_clock(esp: FakeESP, text: bytes) -> None:
    messages_through(esp.url)
    esp.script = [Answer(takes=True, do=fakeesp.drip(text, pause=0.1))]
    deliver()
    assert states() == ["unknown"]
    assert set(esp.ledger.values()) == {1}


@pytest.mark.parametrize("flood", [fakeesp.endless, fakeesp.gzip_bomb])
def test_e12_answer_without_end_is_cut_off(esp: FakeESP, flood: Any) -> None:
    messages_through(esp.url)
    esp.script = [Answer(do=flood, takes=True)]
    deliver()
    assert states() == ["unknown"]


def test_e14_certificate_nobody_knows_is_refused_and_nothing_is_said(tmp_path: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with fake_esp() as esp:
        esp.socket = context.wrap_socket(esp.socket, server_side=True)
        messages_through(esp.url.replace("http:", "https:"))
        deliver()
        assert esp.requests == []
    assert states() == ["retry"]
    assert "SSLError" in Message.objects.get().detail


def break_tls(handler: Any) -> None:
    """Go on in clear text where TLS was spoken."""
    with socket.socket(fileno=handler.connection.detach()) as plain:
        plain.sendall(b"HTTP/1.1 500 Internal Server Error\r\n\r\n")


@pytest.mark.parametrize("kind", ["postmark", "ses"])
@pytest.mark.parametrize(
    ("is_known", "state", "taken"), [(False, "retry", 0), (True, "unknown", 1)]
)
def test_e14_tls_that_breaks_is_a_doubt_once_the_call_is_written(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    kind: str,
    is_known: bool,
    state: str,
    taken: int,
) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusted = authority if is_known else trustme.CA()
    trusted.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    monkeypatch.setattr(
        client_module, "_trust", lambda: ssl.create_default_context(cafile=tmp_path / "ca.pem")
    )
    client_module.client.close()
    with fake_esp(kind) as esp:
        esp.socket = context.wrap_socket(esp.socket, server_side=True)
        esp.script = [Answer(do=break_tls, takes=True)]
        secrets = "TEST_KEY, TEST_KEY" if kind == "ses" else "TEST_KEY"
        url = esp.url.replace("http:", "https:")
        messages_through(url, backend=kind, secret_env=secrets)
        deliver()
        assert sum(esp.ledger.values()) == taken
    client_module.client.close()
    assert states() == [state]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://nowhere.invalid"])
def test_e15_nobody_there_uses_up_no_attempt(url: str) -> None:
    messages_through(url)
    for _ in range(4):
        deliver()
        time_passes()
    assert states() == ["retry"]
    assert Message.objects.get().failures == 0


# --- Circuits, failover --------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [Answer(401, "bad key"), Answer(403, "account paused")])
def test_e16_e17_account_that_is_closed_costs_one_call_until_it_is_open_again(
    esp: FakeESP, answer: Answer
) -> None:
    messages_through(esp.url, 20)
    esp.script = [answer]
    for _ in range(3):
        deliver()
    assert len(esp.requests) == 1
    assert set(Message.objects.values_list("failures", flat=True)) == {0}
    circuit = Circuit.objects.get()
    assert circuit.open_until is not None
    assert "HTTP 40" in circuit.reason
    time_passes()
    for _ in range(3):
        deliver()
        Message.objects.filter(state="queued").update(due_at=Now())
    assert states() == ["sent"] * 20
    assert Circuit.objects.get().open_until is None
    assert set(esp.ledger.values()) == {1}


def test_e21_provider_that_is_down_is_stood_in_for_by_its_pool(esp: FakeESP) -> None:
    doubtful, *rest = messages_through(esp.url, 8, pool="main", concurrency=1)
    with fake_esp() as other:
        ProviderFactory(
            key="other", backend="postmark", api_url=other.url, secret_env="TEST_KEY", pool="main"
        )
        esp.script = [Answer(500, "oops"), Answer(401, "closed")]
        deliver()
        time_passes_for_messages()
        deliver()
        assert len(esp.requests) == 2
        # What the first one may have stays where it is.
        assert states() == ["unknown"] + ["sent"] * 7
        assert doubtful.pk not in other.ledger
        assert set(other.ledger) == {message.pk for message in rest}
        assert Message.objects.filter(provider__key="other").count() == 7


def time_passes_for_messages() -> None:
    Message.objects.filter(state__in=("retry", "queued")).update(due_at=Now())


def test_e21_stand_in_has_to_fit(esp: FakeESP) -> None:
    messages_through("http://127.0.0.1:1", pool="main", regions=["eu-*"])
    fields = {"backend": "postmark", "api_url": esp.url, "secret_env": "TEST_KEY", "pool": "main"}
    ProviderFactory(key="a", **fields, is_active=False)
    ProviderFactory(key="b", **fields, carries="marketing")
    ProviderFactory(key="c", **{**fields, "pool": "another"})
    ProviderFactory(key="d", **fields)
    stop_sending("provider", "d")
    Circuit.objects.create(
        provider=Message.objects.get().sender.provider, open_until=Now() + timedelta(hours=1)
    )
    deliver()
    assert esp.requests == []


def test_e22_one_message_at_a_time_tries_whether_a_provider_is_back(esp: FakeESP) -> None:
    messages_through(esp.url, 10)
    esp.script = [Answer(401, "closed"), Answer(401, "closed"), Answer(401, "closed")]
    pauses = []
    for calls in (1, 2, 3):
        for _ in range(3):
            deliver()
            time_passes_for_messages()
        assert len(esp.requests) == calls
        circuit = Circuit.objects.annotate(pause=F("open_until") - Now()).get()
        pauses.append(circuit.pause.total_seconds())
        time_passes()
    assert pauses == [
        pytest.approx(60, abs=20),
        pytest.approx(60, abs=20),
        pytest.approx(120, abs=20),
    ]


def test_e22_two_workers_do_not_both_try(esp: FakeESP) -> None:
    (message,) = messages_through(esp.url)
    provider = message.sender.provider
    Circuit.objects.create(provider=provider, open_until=Now() - timedelta(seconds=1), trips=1)
    assert circuits.claim_probes([provider.pk]) == {provider.pk}
    assert circuits.claim_probes([provider.pk]) == set()


# --- Idempotent providers ------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("choice", "state", "calls"), [("keep", "unknown", 1), ("resend", "sent", 2)]
)
def test_stream_may_prefer_twice_to_not_at_all(
    esp: FakeESP, settings: Any, choice: str, state: str, calls: int
) -> None:
    config = settings.EMAILAUTO
    on_unknown = msgspec.structs.replace(config.provider.on_unknown, transactional=choice)
    provider = msgspec.structs.replace(config.provider, on_unknown=on_unknown)
    settings.EMAILAUTO = msgspec.structs.replace(config, provider=provider)
    messages_through(esp.url)
    esp.script = [Answer(500, "oops")]
    for _ in range(3):
        deliver()
        time_passes()
    assert states() == [state]
    assert len(esp.requests) == calls


# --- Concurrency, switches -----------------------------------------------------------------------


def test_slow_provider_is_served_by_several_connections(esp: FakeESP, settings: Any) -> None:
    settings.EMAIL_TIMEOUT = 10
    messages_through(esp.url, 12, concurrency=4)
    esp.usual.seconds = 0.2
    busy = Busy(esp)
    deliver()
    assert states() == ["sent"] * 12
    assert set(esp.ledger.values()) == {1}
    assert busy.most == 4
    assert esp.connections <= 5


class Busy:
    """How many requests were being answered at once."""

    def __init__(self, esp: FakeESP) -> None:
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        take = esp.take

        def counting(*mail: Any) -> None:
            with self._lock:
                self._now += 1
                self.most = max(self.most, self._now)
            take(*mail)
            time.sleep(0.15)
            with self._lock:
                self._now -= 1

        esp.take = counting  # type: ignore[method-assign]


@pytest.mark.parametrize("target", [("everything", ""), ("provider", "esp"), ("campaign", "c1")])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_r06_switch_bites_in_the_middle_of_a_batch(
    esp: FakeESP, settings: Any, target: tuple[str, str], concurrency: int
) -> None:
    settings.EMAIL_TIMEOUT = 10
    messages_through(esp.url, 25, concurrency=concurrency)
    Message.objects.update(origin_campaign="c1")
    esp.usual.seconds = 0.25
    take = esp.take

    def then_stop(*mail: Any) -> None:
        take(*mail)
        if len(esp.requests) >= 2:
            thrown.set()

    thrown = threading.Event()
    esp.take = then_stop  # type: ignore[method-assign]

    def throw() -> None:
        stop_sending(*target)

    # In the same transaction as the test's, which no other connection could see into.
    from delivery import engine

    as_usual = engine.active_switches

    def looking() -> Any:
        if thrown.is_set():
            throw()
        return as_usual()

    engine.active_switches = looking  # type: ignore[assignment]
    try:
        deliver_batch("transactional", limit=25)
    finally:
        engine.active_switches = as_usual  # type: ignore[assignment]
    # Within a second: what was on its way, and what was begun until the next look.
    assert 2 <= len(esp.requests) <= 2 + 4 * concurrency
    assert sorted(set(states())) == ["queued", "sent"]
    assert Attempt.objects.count() == len(esp.requests)
    deliver()
    assert sorted(set(states())) == ["held", "sent"]
    assert set(esp.ledger.values()) == {1}


# --- Doubts that wait -----------------------------------------------------------------------------


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


@pytest.mark.parametrize("esp_id", ["a\x00b", "\ud800", "x" * 5_000, {"a": 1}, None, 7])
def test_name_a_provider_gives_is_stored_as_far_as_it_can_be(esp: FakeESP, esp_id: Any) -> None:
    messages_through(esp.url, 3, concurrency=1)
    body = {"ErrorCode": 0, "Message": "OK", "MessageID": esp_id, "To": "a@example.com"}
    esp.script = [Answer(200, json.dumps(body), takes=True)]
    deliver()
    assert states() == ["sent"] * 3


@pytest.mark.parametrize("charset", ["undefined", "idna", "nonsense", "utf-7"])
@pytest.mark.parametrize(("status", "state"), [(200, "sent"), (422, "failed")])
def test_charset_of_an_answer_is_not_believed(
    esp: FakeESP, charset: str, status: int, state: str
) -> None:
    messages_through(esp.url)
    content_type = {"Content-Type": f"application/json; charset={charset}"}
    esp.script = [Answer(status, "{", content_type, takes=status == 200)]
    deliver()
    assert states() == [state]


@pytest.mark.parametrize(("status", "state"), [(200, "sent"), (422, "failed"), (500, "unknown")])
def test_answer_that_ends_too_soon_has_said_it_in_its_head(
    esp: FakeESP, status: int, state: str
) -> None:
    messages_through(esp.url)
    head = f"HTTP/1.1 {status} X\r\nContent-Length: 100\r\n\r\n{{".encode()
    esp.script = [Answer(do=lambda handler: handler.wfile.write(head))]
    deliver()
    assert states() == [state]


def test_key_that_a_provider_quotes_is_not_stored(
    esp: FakeESP, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "a-secret-key")
    messages_through(esp.url)
    esp.script = [Answer(401, "Bad token: a-secret-key")]
    deliver()
    stored = [*Message.objects.values_list("detail"), *Attempt.objects.values_list("detail")]
    stored += Circuit.objects.values_list("reason")
    assert len(stored) == 3
    assert all("secret" not in text and "Bad token" in text for (text,) in stored)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_outcomes_are_recorded_although_the_switches_cannot_be_read(
    esp: FakeESP, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    messages_through(esp.url, 12, concurrency=concurrency)
    esp.usual.seconds = 0.2
    looks = 0

    def failing() -> Any:
        nonlocal looks
        looks += 1
        raise OperationalError("gone")

    monkeypatch.setattr("delivery.engine.active_switches", failing)
    # Inside the test's transaction a closed connection would be the end of it.
    monkeypatch.setattr("delivery.turns.connection.close", lambda: None)
    deliver_batch("transactional", limit=25)
    assert looks == 1
    assert set(states()) == {"sent", "queued"}
    assert states().count("sent") == len(esp.requests) == len(esp.ledger)


def test_slow_provider_leaves_time_for_the_others(esp: FakeESP) -> None:
    messages_through(esp.url, 12, concurrency=1)
    esp.usual.seconds = 0.5
    with fake_esp() as fast:
        messages_through(fast.url, 3, key="fast")
        deliver_batch("transactional", limit=25)
        assert len(fast.ledger) == 3


def test_stand_in_that_is_stopped_hides_no_other(esp: FakeESP) -> None:
    messages_through("http://127.0.0.1:1", 2, pool="main")
    fields = {"backend": "postmark", "api_url": esp.url, "secret_env": "TEST_KEY", "pool": "main"}
    ProviderFactory(key="b", **fields, priority=1)
    ProviderFactory(key="c", **fields, priority=2)
    stop_sending("provider", "b")
    down = Message.objects.select_related("sender__provider").first()
    assert down is not None
    assert down.sender is not None
    Circuit.objects.create(provider=down.sender.provider, open_until=Now() + timedelta(hours=1))
    deliver()
    assert set(Message.objects.values_list("state", "provider__key")) == {("sent", "c")}

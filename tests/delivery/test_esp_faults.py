"""The fault catalogue's rows about answers and the network (E01–E15): whatever a provider does to a
call, it gets a mail at most once, and nothing is lost."""

import json
import socket
import ssl
from datetime import timedelta
from typing import Any

import pytest
import trustme
from django.db.models.functions import Now

from delivery.backends import client as client_module
from delivery.engine import deliver_batch, drain
from delivery.models import Attempt, Circuit, Message
from tests.delivery import fakeesp
from tests.delivery.fakeesp import Answer, FakeESP, fake_esp
from tests.factories import MessageFactory, ProviderFactory, SenderFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "a key")


@pytest.fixture
def _impatient(settings: Any) -> None:
    """For answers that never end. All others come when the machine gets to them."""
    settings.EMAIL_TIMEOUT = 2


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
    esp.script = [Answer(status, "{}", content_type, takes=status == 200)]
    deliver()
    assert states() == [state]


@pytest.mark.parametrize(("status", "state"), [(200, "sent"), (422, "retry"), (500, "unknown")])
def test_answer_that_ends_too_soon_has_said_it_in_its_head(
    esp: FakeESP, status: int, state: str
) -> None:
    messages_through(esp.url)
    head = f"HTTP/1.1 {status} X\r\nContent-Length: 100\r\n\r\n{{".encode()
    esp.script = [Answer(do=lambda handler: handler.wfile.write(head))]
    deliver()
    assert states() == [state]


@pytest.mark.parametrize(
    ("key", "quoted"),
    [
        ("a-secret-key", "a-secret-key"),
        ("a-secret@key.part,secret", "a-secret@key.part,secret"),
        ("a/secret", r"a\/secret"),
        ('a"secret', r"a\"secret"),
        (r"a\secret", r"a\\secret"),
        ("a+secret<key", r"a\u002Bsecret\u003ckey"),
        ("a/secret", r"a\\\/secret"),  # of JSON in JSON
        ("a  secret", "a  secret"),
    ],
)
def test_key_that_a_provider_quotes_is_not_stored(
    esp: FakeESP, monkeypatch: pytest.MonkeyPatch, key: str, quoted: str
) -> None:
    monkeypatch.setenv("TEST_KEY", key)
    messages_through(esp.url)
    esp.script = [Answer(401, f"Bad token: {quoted}")]
    deliver()
    stored = [*Message.objects.values_list("detail"), *Attempt.objects.values_list("detail")]
    stored += Circuit.objects.values_list("reason")
    assert len(stored) == 3
    assert all("secret" not in text and "Bad token: ***" in text for (text,) in stored)


# --- Connections ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("_impatient")
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


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("kind", ["postmark", "ses"])
def test_e11_head_that_drips_ends_by_the_clock_and_is_a_doubt(kind: str) -> None:
    secrets = "TEST_KEY, TEST_KEY" if kind == "ses" else "TEST_KEY"
    text = b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 400
    with fake_esp(kind) as esp:
        messages_through(esp.url, backend=kind, secret_env=secrets)
        esp.script = [Answer(takes=True, do=fakeesp.drip(text, pause=0.1))]
        deliver()
        assert states() == ["unknown"]
        assert set(esp.ledger.values()) == {1}


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(
    ("kind", "status", "state"),
    [
        ("postmark", 200, "sent"),
        ("ses", 200, "sent"),
        ("postmark", 401, "retry"),
        ("postmark", 429, "retry"),
        ("postmark", 422, "retry"),
        ("postmark", 500, "unknown"),
        # Where the body decides.
        ("postal", 200, "unknown"),
        ("mailjet", 200, "unknown"),
    ],
)
def test_e11_body_that_stalls_ends_by_the_clock_and_the_head_has_said_it(
    kind: str, status: int, state: str
) -> None:
    secrets = "TEST_KEY, TEST_KEY" if kind in ("ses", "mailjet") else "TEST_KEY"
    text = f"HTTP/1.1 {status} X\r\nContent-Length: 400\r\n\r\n{{".encode()
    with fake_esp(kind) as esp:
        messages_through(esp.url, backend=kind, secret_env=secrets)
        esp.script = [Answer(takes=status == 200, do=stalling(text))]
        deliver()
        assert len(esp.requests) == 1
    assert states() == [state]


def stalling(text: bytes) -> Any:
    """Say this much and hang."""

    def saying(handler: Any) -> None:
        handler.wfile.write(text)
        fakeesp.hang(30)(handler)

    return saying


@pytest.mark.parametrize("flood", [fakeesp.endless, fakeesp.gzip_bomb])
@pytest.mark.parametrize(
    ("kind", "state"), [("postmark", "sent"), ("postal", "unknown"), ("mailjet", "unknown")]
)
def test_e12_answer_without_end_is_cut_off_and_the_head_has_said_it(
    kind: str, state: str, flood: Any
) -> None:
    secrets = "TEST_KEY, TEST_KEY" if kind == "mailjet" else "TEST_KEY"
    with fake_esp(kind) as esp:
        messages_through(esp.url, backend=kind, secret_env=secrets)
        esp.script = [Answer(do=flood, takes=True)]
        deliver()
    assert states() == [state]


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

"""Reading the bounce mailbox over real IMAP: nothing is lost, nothing counts twice."""

import logging
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trustme
from django.core.management import CommandError, call_command
from django.db import connection

from delivery.models import Message
from suppression.models import Suppression
from tests.factories import MessageFactory
from tests.webhooks.fakeimap import PASSWORD, USER, FakeImap, url_of
from tests.webhooks.mailbox.corpus import bounce_of
from webhooks.mailbox import imap, services
from webhooks.mailbox.account import MailboxError
from webhooks.mailbox.services import poll
from webhooks.models import Receipt
from webhooks.services import drain_receipts, replay_receipts
from webhooks.tasks import poll_bounces

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def server(settings: Any) -> Iterator[FakeImap]:
    yield from serving(settings)


def serving(settings: Any, scheme: str = "imap", **options: Any) -> Iterator[FakeImap]:
    server = FakeImap(**options)
    settings.BOUNCE_MAILBOX_URL = url_of(server, scheme)
    settings.BOUNCE_MAILBOX_AFTER = "move:Processed"
    yield server
    server.close()


def sent() -> Message:
    message: Message = MessageFactory(state="sent")
    return message


def test_mail_is_kept_then_put_away_then_applied(server: FakeImap) -> None:
    message = sent()
    server.put(bounce_of(message.pk))
    assert poll() == 1
    assert (server.count(), server.count("Processed")) == (0, 1)
    assert server.folders["Processed"][0].flags == {"\\Seen"}
    receipt = Receipt.objects.get()
    assert (receipt.provider, receipt.state) == ("mailbox", "pending")
    assert bytes(receipt.body) == bounce_of(message.pk)
    drain_receipts(budget=5)
    assert Suppression.objects.get().email == message.email
    message.refresh_from_db()
    assert message.bounced_at is not None
    assert poll() == 0


@pytest.mark.parametrize(
    "capabilities",
    ["AUTH=PLAIN MOVE UIDPLUS", "AUTH=PLAIN UIDPLUS", "AUTH=PLAIN", "AUTH=PLAIN MOVE"],
)
@pytest.mark.parametrize(("policy", "moved"), [("move:Old mail", 3), ("delete", 0)])
def test_mailbox_is_emptied_on_any_server(
    server: FakeImap, settings: Any, capabilities: str, policy: str, moved: int
) -> None:
    server.capabilities = capabilities
    settings.BOUNCE_MAILBOX_AFTER = policy
    for number in range(3):
        server.put(b"Subject: %d\r\n\r\nnothing\r\n" % number)
    assert poll() == 3
    assert (server.count(), server.count("Old mail")) == (0, moved)
    assert Receipt.objects.count() == 3


def test_many_mails_come_in_batches(server: FakeImap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "BATCH", 2)
    monkeypatch.setattr(services, "MOST", 5)
    for number in range(7):
        server.put(b"Subject: %d\r\n\r\n" % number)
    assert [poll(), poll(), poll()] == [5, 2, 0]
    assert Receipt.objects.count() == 7


def test_death_between_keeping_and_putting_away_has_one_effect(server: FakeImap) -> None:
    message = sent()
    server.put(bounce_of(message.pk))
    server.hang_up_at = "UID STORE"
    with pytest.raises(MailboxError):
        poll()
    assert (server.count(), Receipt.objects.count()) == (1, 1)
    drain_receipts(budget=5)
    server.hang_up_at = ""
    assert poll() == 1
    assert (server.count(), Receipt.objects.count()) == (0, 1)
    drain_receipts(budget=5)
    assert Receipt.objects.get().attempts == 1
    assert Suppression.objects.count() == 1


def test_database_that_is_away_leaves_the_mail_where_it_is(
    server: FakeImap, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put(b"Subject: hello\r\n\r\n")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE webhooks_receipt ADD CONSTRAINT shut CHECK (false) NOT VALID")
    try:
        with pytest.raises(Exception, match="shut"):
            poll()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE webhooks_receipt DROP CONSTRAINT shut")
    assert server.count() == 1
    assert not {"UID STORE", "UID MOVE"} & set(server.commands)
    assert poll() == 1


def test_two_polls_at_once_keep_each_mail_once(server: FakeImap) -> None:
    for number in range(60):
        server.put(b"Subject: %d\r\n\r\n" % number)
    faults: list[Exception] = []

    def run() -> None:
        try:
            poll()
        except Exception as error:  # noqa: BLE001 - shown below
            faults.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert (server.count(), server.count("Processed"), Receipt.objects.count()) == (0, 60, 60)


def test_poison_mail_is_a_dead_receipt_and_its_neighbours_are_applied(server: FakeImap) -> None:
    message = sent()
    server.put(b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + b"--x\r\n\r\n\r\n" * 10_000)
    server.put(bounce_of(message.pk))
    assert poll() == 2
    for _ in range(5):
        drain_receipts(budget=5)
        Receipt.objects.filter(state="pending").update(due_at="2026-01-01T00:00Z")
    poison, good = Receipt.objects.order_by("state")[::-1]
    assert (poison.state, good.state) == ("dead", "applied")
    assert "more than 100 parts" in poison.error
    assert Suppression.objects.count() == 1
    assert replay_receipts([poison.pk]) == 1


def test_mail_that_the_server_withholds_does_not_hold_up_the_others(server: FakeImap) -> None:
    server.put(b"Subject: one\r\n\r\n")
    server.refuse = {"UID FETCH": "NO it is broken"}
    assert poll() == 0
    server.refuse = {"UID FETCH": "BAD it is broken"}
    assert poll() == 0
    server.refuse = {}
    assert poll() == 1


@pytest.mark.parametrize("ignores_limits", [False, True])
def test_huge_mail_is_taken_as_far_as_there_is_room(server: FakeImap, ignores_limits: bool) -> None:
    message = sent()
    server.ignores_limits = ignores_limits
    server.put(bounce_of(message.pk) + b"x" * 5_000_000)
    server.put(b"Subject: the next one\r\n\r\n")
    assert poll() == 2
    sizes = sorted(len(bytes(receipt.body)) for receipt in Receipt.objects.all())
    assert sizes == [len(b"Subject: the next one\r\n\r\n"), imap.MAX_MAIL]
    drain_receipts(budget=5)
    assert Suppression.objects.count() == 1


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"hang_up_at": "CAPABILITY"}, "cannot be reached"),
        ({"hang_up_at": "AUTHENTICATE"}, "cannot be reached"),
        ({"hang_up_at": "SELECT"}, "cannot be reached"),
        ({"hang_up_at": "FETCH"}, "cannot be reached"),
        ({"hang_up_at": "UID FETCH"}, "cannot be reached"),
        ({"refuse": {"AUTHENTICATE": f"NO {USER} is not let in"}}, "refused the login"),
        ({"refuse": {"SELECT": f"NO {USER} has none"}}, "no such folder"),
        ({"refuse": {"UID MOVE": f"NO {USER} may not"}}, "did not move"),
        ({"refuse": {"UID STORE": f"NO {USER} may not"}}, "did not move"),
        ({"read_only": True}, "lets nobody change"),
    ],
)
def test_fault_is_told_without_names_and_the_next_poll_gets_the_mail(
    server: FakeImap, caplog: pytest.LogCaptureFixture, options: dict[str, Any], why: str
) -> None:
    server.put(b"Subject: hello\r\n\r\n")
    before = {name: getattr(server, name) for name in options}
    for name, broken in options.items():
        setattr(server, name, broken)
    with caplog.at_level(logging.DEBUG):
        poll_bounces()
    (record,) = [record for record in caplog.records if "bounce mailbox" in record.message]
    assert why in record.why  # type: ignore[attr-defined]
    logged = "".join(str(record.__dict__) for record in caplog.records)
    assert USER not in logged
    assert PASSWORD not in logged
    assert server.count() == 1
    for name, usual in before.items():
        setattr(server, name, usual)
    poll_bounces()
    assert (server.count(), Receipt.objects.count()) == (0, 1)


def test_server_that_is_away_is_told_by_the_command(settings: Any) -> None:
    settings.BOUNCE_MAILBOX_URL = "imap://user:password@127.0.0.1:1/INBOX"
    with pytest.raises(CommandError, match="cannot be reached"):
        call_command("poll_bounces")


def test_session_ends_in_time_however_slow_the_server_is(
    server: FakeImap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imap, "SESSION_SECONDS", 0.5)
    server.stall_at = "SELECT"
    with pytest.raises(MailboxError, match="cannot be reached"):
        poll()


def test_wrong_password_and_one_that_cannot_be_written(settings: Any) -> None:
    for server in serving(settings, capabilities=""):  # no AUTH=PLAIN: the LOGIN command
        with pytest.raises(MailboxError, match="refused the login"):
            poll()  # its password is not ASCII
        settings.BOUNCE_MAILBOX_URL = url_of(server, password="wrong")
        with pytest.raises(MailboxError, match="refused the login"):
            poll()
        assert server.logins == [(USER, "wrong")]


def test_nothing_is_asked_without_a_mailbox(settings: Any) -> None:
    settings.BOUNCE_MAILBOX_URL = ""
    poll_bounces()
    with pytest.raises(CommandError, match="not of the form"):
        call_command("poll_bounces")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize("scheme", ["imaps", "imap+tls"])
def test_tls_is_checked(
    settings: Any,
    scheme: str,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    for server in serving(settings, context=context, starttls=scheme == "imap+tls"):
        server.put(b"Subject: hello\r\n\r\n")
        settings.BOUNCE_MAILBOX_URL = url_of(server, scheme, host="localhost")
        with pytest.raises(MailboxError, match="SSLCertVerificationError"):
            poll()
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert poll() == 1
        assert server.logins == [(USER, PASSWORD)]


def test_password_is_not_sent_to_a_server_without_starttls(server: FakeImap, settings: Any) -> None:
    settings.BOUNCE_MAILBOX_URL = url_of(server, "imap+tls")
    with pytest.raises(MailboxError, match="offers no STARTTLS"):
        poll()
    assert server.logins == []


def test_number_of_queries_does_not_depend_on_the_number_of_mails(
    server: FakeImap, django_assert_num_queries: Any
) -> None:
    for count in (1, services.BATCH):
        for number in range(count):
            server.put(b"Subject: %d of %d\r\n\r\n" % (number, count))
        with django_assert_num_queries(1):
            assert poll() == count

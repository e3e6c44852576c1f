"""Reading the bounce mailbox over real IMAP: nothing is lost, nothing counts twice."""

import logging
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from delivery.models import Message
from emailauto.supervisor import programs
from suppression.models import Suppression
from tests.delivery.crashing import environment
from tests.factories import MessageFactory
from tests.webhooks.fakeimap import PASSWORD, USER, FakeImap, url_of
from tests.webhooks.mailbox.corpus import bounce_of
from webhooks.mailbox import imap, services
from webhooks.mailbox.account import MailboxError
from webhooks.mailbox.services import poll
from webhooks.models import BounceMailbox, Receipt, Turn
from webhooks.services import drain_receipts, replay_receipts
from webhooks.tasks import poll_bounces
from webhooks.turns import turn

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
    monkeypatch.setattr(imap, "_WINDOW", 3)
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
    # As with a kill, which leaves no word of what was kept.
    BounceMailbox.objects.all().delete()
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


def elsewhere(work: Callable[[], Any]) -> Any:
    """What comes of it on a connection of its own."""

    def run() -> Any:
        try:
            return work()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def test_one_poll_at_a_time(server: FakeImap) -> None:
    server.put(b"Subject: hello\r\n\r\n")
    with turn(services.TURN, seconds=60):
        assert elsewhere(poll) is None
        poll_bounces()
        with pytest.raises(CommandError, match="at the moment"):
            call_command("poll_bounces")
    assert server.commands == []
    assert poll() == 1


def test_a_poll_that_died_is_waited_for_no_longer_than_its_turn(server: FakeImap) -> None:
    server.put(b"Subject: hello\r\n\r\n")
    Turn.objects.create(name=services.TURN, lease_owner="dead", lease_until=Now())
    assert poll() == 1
    assert Turn.objects.get().lease_owner == ""


def test_a_mailbox_that_moves_no_mail_holds_up_none(server: FakeImap) -> None:
    """Twenty fill a batch that is refused; the bounce behind them is kept all the same."""
    for number in range(services.BATCH):
        server.put(b"Subject: %d\r\n\r\n" % number)
    message = sent()
    server.put(bounce_of(message.pk))
    server.refuse = {"UID MOVE": "NO [OVERQUOTA] full"}
    with pytest.raises(MailboxError, match="did not move"):
        poll()
    drain_receipts(budget=5)
    assert Receipt.objects.count() == services.BATCH + 1
    assert Suppression.objects.get().email == message.email
    # What is kept is not fetched again, what comes is.
    server.commands.clear()
    server.put(b"Subject: the next one\r\n\r\n")
    with pytest.raises(MailboxError, match="did not move"):
        poll()
    assert server.commands.count("UID FETCH") == 1
    memory = BounceMailbox.objects.get()
    assert (len(memory.kept), memory.failures) == (services.BATCH + 2, 2)
    assert memory.last_error == "it did not move or delete mails"
    server.refuse = {}
    server.commands.clear()
    assert poll() == 0
    assert (server.count(), server.count("Processed")) == (0, services.BATCH + 2)
    assert "UID FETCH" not in server.commands
    memory.refresh_from_db()
    assert (memory.kept, memory.failures, memory.last_error) == ([], 0, "")
    assert memory.last_ok_at is not None


def test_more_mails_than_a_poll_keeps_that_cannot_be_moved_hold_up_none(
    server: FakeImap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "MOST", 2)
    monkeypatch.setattr(services, "BATCH", 1)
    server.refuse = {"UID MOVE": "NO [OVERQUOTA] full"}
    for number in range(6):
        server.put(b"Subject: %d\r\n\r\n" % number)
    for kept in (2, 4, 6):
        server.commands.clear()
        with pytest.raises(MailboxError):
            poll()
        assert Receipt.objects.count() == kept
        assert server.commands.count("CREATE") <= 3  # no storm of what is refused anyway


def test_a_mail_that_cannot_be_moved_keeps_its_batch_only(
    server: FakeImap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "BATCH", 2)
    for number in range(5):
        server.put(b"Subject: %d\r\n\r\n" % number)
    server.immovable_uid = 4
    with pytest.raises(MailboxError, match="did not move"):
        poll()
    assert {mail.uid for mail in server.folders["INBOX"]} == set(BounceMailbox.objects.get().kept)
    assert (server.count(), Receipt.objects.count()) == (2, 5)


@pytest.mark.parametrize("changed", ["validity", "account"])
def test_uids_that_mean_something_else_now_are_forgotten(
    server: FakeImap, settings: Any, changed: str
) -> None:
    """Or a mail that was never kept would be put away under the number of another."""
    settings.BOUNCE_MAILBOX_AFTER = "delete"
    uid = server.put(b"Subject: old\r\n\r\n")
    server.refuse = {"UID STORE": "NO"}
    with pytest.raises(MailboxError):
        poll()
    server.refuse = {}
    server.folders["INBOX"].clear()
    if changed == "validity":
        server.uid_validity += 1
    else:
        settings.BOUNCE_MAILBOX_URL = url_of(server, host="localhost")
    server.put(b"Subject: new\r\n\r\n")
    server.folders["INBOX"][0].uid = uid
    assert poll() == 1
    assert Receipt.objects.count() == 2


def test_a_server_that_gives_its_mails_no_validity_is_emptied_all_the_same(
    server: FakeImap,
) -> None:
    server.uid_validity = 0
    server.put(b"Subject: hello\r\n\r\n")
    server.refuse = {"UID MOVE": "NO [OVERQUOTA] full"}
    with pytest.raises(MailboxError):
        poll()
    server.refuse = {}
    server.commands.clear()
    assert poll() == 1
    assert "UID FETCH" in server.commands
    assert (server.count(), Receipt.objects.count()) == (0, 1)


def test_a_mail_at_which_sessions_break_off_comes_after_all_others(server: FakeImap) -> None:
    poison = server.put(b"Subject: poison\r\n\r\n")
    for number in range(3):
        server.put(b"Subject: %d\r\n\r\n" % number)
    server.hang_up_at_uid = poison
    for kept in (0, 3, 3):
        with pytest.raises(MailboxError, match="cannot be reached"):
            poll()
        assert (Receipt.objects.count(), server.count()) == (kept, 4 - kept)
    server.hang_up_at_uid = 0
    assert poll() == 1
    assert (Receipt.objects.count(), server.count()) == (4, 0)


def test_what_was_fetched_before_the_connection_broke_is_kept(server: FakeImap) -> None:
    server.put(b"Subject: first\r\n\r\n")
    server.hang_up_at_uid = server.put(b"Subject: second\r\n\r\n")
    with pytest.raises(MailboxError):
        poll()
    assert Receipt.objects.count() == 1
    assert len(BounceMailbox.objects.get().kept) == 1


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


def test_a_slow_server_is_read_a_part_at_a_time(
    server: FakeImap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each session keeps what it can fetch in its time, and puts that away: no error."""
    # By a clock that counts mails, because this process may itself be slow. It is ahead, so that no
    # session is cut off by the one on the wall.
    start = time.monotonic() + 3_600
    clock = SimpleNamespace(monotonic=lambda: start + 0.3 * server.commands.count("UID FETCH"))
    for module in (imap, services):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(imap, "SESSION_SECONDS", 2.0)
    for number in range(8):
        server.put(b"Subject: %d\r\n\r\n" % number)
    rounds = []
    while sum(rounds) < 8:
        rounds.append(poll() or 0)
        assert (server.count(), Receipt.objects.count()) == (8 - sum(rounds), sum(rounds))
        assert len(rounds) < 20
    assert 0 not in rounds
    assert len(rounds) > 1


def test_clock_has_the_mailbox_read_where_nobody_waits_for_the_worker() -> None:
    """A poll lasts as long as the mail server lets it, and must not stand before the sweep."""
    told = (
        "from emailauto.settings import CELERY_BEAT_SCHEDULE as S;"
        "print(S['bounce-mailbox']['task'], S['bounce-mailbox']['options']['queue'])"
    )
    found = subprocess.run(
        [sys.executable, "-c", told],
        env=environment(broker="memory://") | {"BOUNCE_MAILBOX_URL": "imaps://u:p@h.example/INBOX"},
        capture_output=True,
        text=True,
        check=True,
    )
    task, queue = found.stdout.split()
    assert task == poll_bounces.name
    assert queue in programs._BULK_LANES.split(",")
    assert queue not in programs._PROMPT_LANES.split(",")


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


def test_number_of_queries_does_not_depend_on_the_number_of_mails(server: FakeImap) -> None:
    counts = []
    for count in (1, 1, services.BATCH):
        for number in range(count):
            server.put(b"Subject: %d of %d\r\n\r\n" % (number, count))
        with CaptureQueriesContext(connection) as captured:
            assert poll() == count
        counts.append(len(captured))
    # The turn, what is remembered, the mails, what is remembered, the turn. The first time what is
    # remembered is new.
    assert counts[1:] == [5, 5]

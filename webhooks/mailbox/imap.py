"""The bounce mailbox over IMAP: a session that ends in time and takes no more than it has room for.

imaplib waits for every single byte as long as its timeout says, and reads whatever length the
server announces; both are bounded here.
"""

import contextlib
import imaplib
import re
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from webhooks.mailbox.account import Account, MailboxError, Security
from webhooks.session import watchdog

MAX_MAIL = 256 * 1024
"""Bytes of a mail that are taken. What a report says stands at its beginning; the mail that it
brings back stands at its end."""

SESSION_SECONDS = 30.0
"""From the connection to its end, whatever the server does: others need the worker, too."""
_TIMEOUT = 10.0
# Of the mails that are listed with one command.
_WINDOW = 1_000
_DISCARDED_AT_ONCE = 64 * 1024
# Numbers of 32 bits, both of them.
_UID = re.compile(rb"\bUID (\d{1,10})\b")
_VALIDITY = re.compile(rb"\d{1,10}")


class Refused(MailboxError):
    """The server said no to this, and may do something else."""


class _Bounded:
    """Of imaplib's connections: cut off at a deadline, and no literal is kept beyond a mail's."""

    deadline: float

    def open(self, host: str = "", port: int | None = 0, timeout: float | None = None) -> None:
        super().open(host, port, timeout)  # type: ignore[misc]
        self.deadline = time.monotonic() + SESSION_SECONDS
        watchdog.watch(self, self.deadline)

    def read(self, size: int) -> bytes:
        """As much of the next `size` bytes as is kept; the others are read and thrown away."""
        kept: bytes = super().read(min(size, MAX_MAIL))  # type: ignore[misc]
        rest = size - MAX_MAIL
        while rest > 0:
            thrown = super().read(min(rest, _DISCARDED_AT_ONCE))  # type: ignore[misc]
            if not thrown:
                break
            rest -= len(thrown)
        return kept

    def shutdown(self) -> None:
        watchdog.forget(self)
        super().shutdown()  # type: ignore[misc]


class _Imap(_Bounded, imaplib.IMAP4):
    pass


class _Imaps(_Bounded, imaplib.IMAP4_SSL):
    pass


class Mailbox:
    """The selected folder. Its methods raise `MailboxError`. UIDs are of the mails in it as long as
    `uid_validity` is the same; None: the server does not say."""

    def __init__(
        self,
        connection: _Imap | _Imaps,
        count: int,
        capabilities: frozenset[str],
        uid_validity: int | None,
    ) -> None:
        self._connection = connection
        self._count = count
        self._capabilities = capabilities
        self.uid_validity = uid_validity

    def seconds_left(self) -> float:
        """Until the connection is cut off."""
        return self._connection.deadline - time.monotonic()

    def uids(self) -> Iterator[int]:
        """The mails, oldest first, asked for as they are wanted."""
        for first in range(1, self._count + 1, _WINDOW):
            last = min(first + _WINDOW - 1, self._count)
            with _step("it did not list its mails"):
                _, answer = self._connection.fetch(f"{first}:{last}", "(UID)")
            found = (_UID.search(line) for line in answer if isinstance(line, bytes))
            yield from (int(match[1]) for match in found if match)

    def fetch(self, uid: int) -> bytes | None:
        """The first `MAX_MAIL` bytes of a mail, which stays unread; None when it is gone or the
        server does not give it out."""
        wanted = f"(BODY.PEEK[]<0.{MAX_MAIL}>)"
        with _step("it did not give out a mail"):
            try:
                status, answer = self._connection.uid("FETCH", str(uid), wanted)
            except imaplib.IMAP4.abort:
                raise
            except imaplib.IMAP4.error:  # one that it cannot read must not hold up the others
                return None
        # It may tell about others in between, but nobody's text.
        texts = (entry[1] for entry in answer if isinstance(entry, tuple))
        return next(texts, None) if status == "OK" else None

    def put_away(self, uids: Sequence[int], folder: str | None) -> None:
        """Mark the mails as read and move them to the folder, or delete them; raises `Refused`.
        Mails that somebody else has put away in the meantime are no error."""
        if not uids:
            return
        which = ",".join(map(str, uids))
        self._uid("STORE", which, "+FLAGS.SILENT", r"(\Seen)")
        if folder is not None and "MOVE" in self._capabilities:
            self._into(folder, "MOVE", which)
            return
        if folder is not None:
            self._into(folder, "COPY", which)
        self._uid("STORE", which, "+FLAGS.SILENT", r"(\Deleted)")
        if "UIDPLUS" in self._capabilities:
            self._uid("EXPUNGE", which)
        else:
            with _step("it did not delete mails"):
                self._connection.expunge()

    def _into(self, folder: str, command: str, which: str) -> None:
        with _step("it did not move mails"):
            status, _ = self._connection.uid(command, which, _quoted(folder))
            if status != "OK":
                self._connection.create(_quoted(folder))
                self._uid(command, which, _quoted(folder))

    def _uid(self, command: str, *arguments: str) -> None:
        with _step("it did not move or delete mails"):
            status, _ = self._connection.uid(command, *arguments)
        if status != "OK":
            raise Refused("it did not move or delete mails")


@contextmanager
def open_mailbox(account: Account) -> Iterator[Mailbox]:
    """The account's folder, selected; raises `MailboxError`, also for faults within the block."""
    with _step("it does not speak IMAP"):
        connection = _connect(account)
    try:
        if account.security is Security.STARTTLS:
            _encrypt(connection)
        _log_in(connection, account)
        yield _select(connection, account.folder)
    finally:
        _leave(connection)


def _connect(account: Account) -> _Imap | _Imaps:
    if account.security is Security.TLS:
        context = ssl.create_default_context()
        return _Imaps(account.host, account.port, ssl_context=context, timeout=_TIMEOUT)
    return _Imap(account.host, account.port, timeout=_TIMEOUT)


def _encrypt(connection: imaplib.IMAP4) -> None:
    if "STARTTLS" not in connection.capabilities:
        raise MailboxError("it offers no STARTTLS")
    with _step("it refused STARTTLS"):
        connection.starttls(ssl.create_default_context())


def _log_in(connection: imaplib.IMAP4, account: Account) -> None:
    with _step("it refused the login"):
        if "AUTH=PLAIN" in connection.capabilities:
            secret = f"\0{account.user}\0{account.password}".encode()
            connection.authenticate("PLAIN", lambda _: secret)
        else:
            connection.login(account.user, account.password)


def _select(connection: _Imap | _Imaps, folder: str) -> Mailbox:
    with _step("it has no such folder, or lets nobody change it"):
        # What it can do may have changed with the login.
        _, words = connection.capability()
        status, count = connection.select(_quoted(folder))
    if status != "OK":
        raise MailboxError("it has no such folder")
    capabilities = frozenset(
        b" ".join(filter(None, words)).decode("ascii", "replace").upper().split()
    )
    _, validity = connection.response("UIDVALIDITY")
    return Mailbox(connection, int(count[0] or 0), capabilities, _number(validity))


def _number(said: Sequence[bytes | None]) -> int | None:
    last = said[-1] if said else None
    return int(last) if last is not None and _VALIDITY.fullmatch(last) else None


def _leave(connection: imaplib.IMAP4) -> None:
    with contextlib.suppress(imaplib.IMAP4.error, OSError):
        connection.logout()
    with contextlib.suppress(imaplib.IMAP4.error, OSError):
        connection.shutdown()


@contextmanager
def _step(otherwise: str) -> Iterator[None]:
    """Translate what imaplib and the socket raise. Nothing of it is kept: servers quote names."""
    try:
        yield
    except imaplib.IMAP4.readonly:
        raise MailboxError("it lets nobody change the folder") from None
    except (imaplib.IMAP4.abort, OSError) as error:
        raise MailboxError(f"it cannot be reached ({type(error).__name__})") from None
    except (imaplib.IMAP4.error, ValueError):  # ValueError: imaplib's for what is not ASCII
        raise Refused(otherwise) from None


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

"""A small IMAP4rev1 server on loopback: what a client needs that reads a mailbox and empties it.

UIDs are never given twice, folders keep their mails apart, and every session sees what the others
did. `capabilities` decides what it can; `hang_up_at`, `refuse` and `stall_at` break it at a
command, `hang_up_at_uid` at the fetching of a mail, and `immovable_uid` at the moving of one.
"""

import base64
import contextlib
import re
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

USER, PASSWORD = "bounces@example.com", "p@ss wörd/%"


@dataclass
class Stored:
    """A mail in a folder."""

    uid: int
    raw: bytes
    flags: set[str] = field(default_factory=set)


class FakeImap:
    """Listens until `close`; `folders` holds what is in it, `commands` what was asked."""

    def __init__(
        self,
        *,
        capabilities: str = "AUTH=PLAIN MOVE UIDPLUS",
        context: ssl.SSLContext | None = None,
        starttls: bool = False,
        hang_up_at: str = "",
        stall_at: str = "",
        refuse: dict[str, str] | None = None,
        ignores_limits: bool = False,
        read_only: bool = False,
    ) -> None:
        self.folders: dict[str, list[Stored]] = {"INBOX": []}
        self.commands: list[str] = []
        self.logins: list[tuple[str, str]] = []
        self.capabilities = capabilities
        self.context = context
        self.starttls = starttls
        self.hang_up_at = hang_up_at
        self.stall_at = stall_at
        self.refuse = refuse or {}
        self.ignores_limits = ignores_limits
        self.read_only = read_only
        self.uid_validity = 7
        self.hang_up_at_uid = 0
        self.immovable_uid = 0
        self._uid = 0
        self._lock = threading.RLock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def put(self, raw: bytes, folder: str = "INBOX") -> int:
        """Deliver a mail; returns its UID."""
        with self._lock:
            self._uid += 1
            self.folders.setdefault(folder, []).append(Stored(self._uid, raw))
            return self._uid

    def count(self, folder: str = "INBOX") -> int:
        return len(self.folders.get(folder, []))

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._meet, args=(peer,), daemon=True).start()

    def _meet(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self.context is not None and not self.starttls:
                peer = self.context.wrap_socket(peer, server_side=True)
            _Session(self, peer).run()


class _Session:
    """One client's dialogue."""

    def __init__(self, server: FakeImap, peer: socket.socket) -> None:
        self._server = server
        self._peer = peer
        self._stream: Any = peer.makefile("rwb")
        self._folder = ""

    def run(self) -> None:
        try:
            self._talk()
        finally:
            with contextlib.suppress(OSError):
                self._stream.close()
            self._peer.close()

    def _talk(self) -> None:
        self._say("* OK fake IMAP ready")
        while line := self._stream.readline():
            tag, _, rest = line.decode().strip().partition(" ")
            name, _, arguments = rest.partition(" ")
            if name.upper() == "UID":
                second, _, arguments = arguments.partition(" ")
                name = f"UID {second}"
            if not self._obey(tag, name.upper(), arguments):
                return

    def _obey(self, tag: str, name: str, arguments: str) -> bool:
        server = self._server
        server.commands.append(name)
        is_poison = name == "UID FETCH" and arguments.split(" ")[0] == str(server.hang_up_at_uid)
        if name == server.hang_up_at or is_poison:
            with contextlib.suppress(OSError):
                self._peer.shutdown(socket.SHUT_RDWR)
            return False
        if name == server.stall_at:
            time.sleep(30)
        if name in server.refuse:
            self._say(f"{tag} {server.refuse[name]}")
            return True
        with server._lock:
            status = getattr(self, "_" + name.lower().replace(" ", "_"))(arguments)
        self._say(f"{tag} {status}")
        if name == "STARTTLS":
            assert server.context is not None
            self._stream.close()
            self._peer = server.context.wrap_socket(self._peer, server_side=True)
            self._stream = self._peer.makefile("rwb")
        return name != "LOGOUT"

    def _say(self, line: str) -> None:
        self._stream.write(line.encode() + b"\r\n")
        self._stream.flush()

    def _capability(self, _: str) -> str:
        tls = " STARTTLS" if self._server.starttls else ""
        self._say(f"* CAPABILITY IMAP4rev1 {self._server.capabilities}{tls}")
        return "OK done"

    def _starttls(self, _: str) -> str:
        return "OK begin"

    def _authenticate(self, _: str) -> str:
        self._say("+ ")
        _, user, password = base64.b64decode(self._stream.readline()).decode().split("\0")
        return self._admit(user, password)

    def _login(self, arguments: str) -> str:
        user, password = re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', arguments)[:2]
        return self._admit(*("".join(pair).replace("\\", "") for pair in (user, password)))

    def _admit(self, user: str, password: str) -> str:
        self._server.logins.append((user, password))
        return "OK done" if (user, password) == (USER, PASSWORD) else f"NO {user} is not let in"

    def _select(self, arguments: str) -> str:
        name = arguments.strip('"')
        if name not in self._server.folders:
            return "NO no such folder"
        self._folder = name
        self._say(f"* {len(self._mails)} EXISTS")
        if self._server.uid_validity:
            self._say(f"* OK [UIDVALIDITY {self._server.uid_validity}]")
        return "OK [READ-ONLY] done" if self._server.read_only else "OK [READ-WRITE] done"

    def _create(self, arguments: str) -> str:
        self._server.folders.setdefault(arguments.strip('"'), [])
        return "OK done"

    def _fetch(self, arguments: str) -> str:
        first, last = map(int, re.match(r"(\d+):(\d+)", arguments).groups())  # type: ignore[union-attr]
        for number, mail in enumerate(self._mails[first - 1 : last], start=first):
            self._say(f"* {number} FETCH (UID {mail.uid})")
        return "OK done"

    def _uid_fetch(self, arguments: str) -> str:
        limit = int(re.search(r"<0\.(\d+)>", arguments)[1])  # type: ignore[index]
        for mail in self._named(arguments):
            raw = mail.raw if self._server.ignores_limits else mail.raw[:limit]
            number = self._mails.index(mail) + 1
            self._say(f"* {number} FETCH (FLAGS ())")  # unasked, as servers do
            head = f"* {number} FETCH (UID {mail.uid} BODY[]<0> {{{len(raw)}}}\r\n"
            self._stream.write(head.encode() + raw + b")\r\n")
        return "OK done"

    def _uid_store(self, arguments: str) -> str:
        for mail in self._named(arguments):
            mail.flags |= set(re.findall(r"\\\w+", arguments))
        return "OK done"

    def _uid_copy(self, arguments: str) -> str:
        target = re.search(r'"([^"]+)"$', arguments)[1]  # type: ignore[index]
        if target not in self._server.folders:
            return "NO [TRYCREATE] no such folder"
        for mail in self._named(arguments):
            self._server.put(mail.raw, target)
            self._server.folders[target][-1].flags = set(mail.flags)
        return "OK done"

    def _uid_move(self, arguments: str) -> str:
        if any(mail.uid == self._server.immovable_uid for mail in self._named(arguments)):
            return "NO it is locked"
        status = self._uid_copy(arguments)
        if status.startswith("OK"):
            self._remove(self._named(arguments))
        return status

    def _uid_expunge(self, arguments: str) -> str:
        self._remove([mail for mail in self._named(arguments) if "\\Deleted" in mail.flags])
        return "OK done"

    def _expunge(self, _: str) -> str:
        self._remove([mail for mail in self._mails if "\\Deleted" in mail.flags])
        return "OK done"

    def _logout(self, _: str) -> str:
        self._say("* BYE")
        return "OK done"

    @property
    def _mails(self) -> list[Stored]:
        return self._server.folders[self._folder]

    def _named(self, arguments: str) -> list[Stored]:
        wanted = {int(uid) for uid in arguments.split(" ")[0].split(",")}
        return [mail for mail in self._mails if mail.uid in wanted]

    def _remove(self, gone: list[Stored]) -> None:
        for mail in gone:
            self._say(f"* {self._mails.index(mail) + 1} EXPUNGE")
            self._mails.remove(mail)


def url_of(server: FakeImap, scheme: str = "imap", **parts: str) -> str:
    """The URL of its inbox, with what has to be escaped escaped."""
    user, password = parts.get("user", USER), parts.get("password", PASSWORD)
    host, folder = parts.get("host", "127.0.0.1"), parts.get("folder", "INBOX")
    credentials = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return f"{scheme}://{credentials}@{host}:{server.port}/{quote(folder)}"

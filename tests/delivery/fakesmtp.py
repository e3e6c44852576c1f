"""An SMTP server on loopback that answers by script, counts round trips, and keeps a ledger of what
it took.

It reads what there is, works it off, and answers it: what stands together in `turns` cost the
client one round trip.
"""

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.delivery.ledger import Ledger, messages_in

Act = str | Callable[[], str | None]
"""An answer, or what to do for one; None hangs up."""

_USUAL = {"DATA": "354 go on", "QUIT": "221 bye"}
_END = b"\r\n.\r\n"


class FakeSMTP:
    """`script` by verb and how many times the server has heard it: `("RCPT", 2)`. Beside the
    verbs: `text`, at a text's first bytes, and `taken`, when it stands in the ledger and has not
    been answered; `dot` is the answer. `at_once`: each reply in a packet of its own."""

    def __init__(self, *, pipelining: bool, at_once: bool, ledger: Path | None) -> None:
        self.script: dict[tuple[str, int], Act] = {}
        self.turns: list[list[str]] = []
        self.sessions = 0
        self.book = Ledger(ledger)
        self.at_once = at_once
        self._extensions = ["250-fake", "250 PIPELINING"] if pipelining else ["250 fake"]
        self._heard: Counter[str] = Counter()
        self._peers: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"smtp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    @property
    def texts(self) -> int:
        """How many texts have begun to arrive, empty ones included."""
        return self._heard["text"]

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(30)

    def hear(self, event: str, usual: str | None) -> str | None:
        """What the script says to it."""
        self._heard[event] += 1
        act = self.script.get((event, self._heard[event]), usual)
        return act() if callable(act) else act

    def will_refuse(self) -> bool:
        """Whether the next text is answered by a refusal."""
        return isinstance(self.script.get(("dot", self._heard["dot"] + 1)), str)

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.sessions += 1
            self._peers.append(peer)
            thread = threading.Thread(target=_Session(self, peer).run, daemon=True)
            self._threads.append(thread)
            thread.start()

    def extensions(self) -> str:
        return "\r\n".join(self._extensions)


class _HangUp(Exception):
    pass


class _Session:
    def __init__(self, server: FakeSMTP, peer: socket.socket) -> None:
        self._server = server
        self._peer = peer
        self._unread = b""
        self._said: list[str] = []
        self._is_in_text = self._has_begun = False
        peer.settimeout(30)

    def run(self) -> None:
        with contextlib.suppress(OSError, _HangUp), self._peer:
            self._say("220 fake")
            self._flush()
            while read := self._peer.recv(1 << 20):
                self._unread += read
                turn: list[str] = []
                while (event := self._step()) is not None:
                    turn.append(event)
                if turn:
                    self._server.turns.append(turn)
                self._flush()

    def _step(self) -> str | None:
        if self._is_in_text:
            return self._text()
        line, found, rest = self._unread.partition(b"\r\n")
        if not found:
            return None
        self._unread = rest
        verb = line[:4].decode().upper()
        usual = self._server.extensions() if verb == "EHLO" else _USUAL.get(verb, "250 OK")
        self._is_in_text = self._answer(verb, usual).startswith("354")
        return verb

    def _text(self) -> str | None:
        if self._unread and not self._has_begun:
            self._has_begun = True
            self._act("text", "")
        # An empty one has no line end before its dot.
        body, found, rest = (b"\r\n" + self._unread).partition(_END)
        if not found:
            return None
        self._unread, self._is_in_text, self._has_begun = rest, False, False
        if not self._server.will_refuse():
            for message in messages_in(body):
                self._server.book.take(message, body)
            self._act("taken", "")
        self._answer("dot", "250 OK")
        return "dot"

    def _act(self, event: str, usual: str) -> str:
        reply = self._server.hear(event, usual)
        if reply is None:
            raise _HangUp
        return reply

    def _answer(self, event: str, usual: str) -> str:
        reply = self._act(event, usual)
        self._say(reply)
        return reply

    def _say(self, reply: str) -> None:
        self._said.append(reply)
        if self._server.at_once:
            self._flush()

    def _flush(self) -> None:
        text = "".join(f"{reply}\r\n" for reply in self._said)
        self._said.clear()
        if text:
            self._peer.sendall(text.encode())


@contextmanager
def fake_smtp(
    *, pipelining: bool = True, at_once: bool = False, ledger: Path | None = None
) -> Iterator[FakeSMTP]:
    """A running one."""
    server = FakeSMTP(pipelining=pipelining, at_once=at_once, ledger=ledger)
    try:
        yield server
    finally:
        server.close()

"""`python -m bench.sink PORT FILE [SECONDS]`: an SMTP server that accepts each mail and notes when.

For each recipient it appends a line `<time.monotonic_ns> <address>` to FILE once the `250` that
accepts the mail is written. Debian's smtp-sink is faster but cannot say when it accepted which
mail, so what measures latency uses this one.

With SECONDS it stands far away: whatever arrives is answered that much later, as by a network with
this round-trip time. What a client sends without waiting for an answer is not delayed again.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import uvloop

_GREETING = b"220 sink ESMTP\r\n"
_EXTENSIONS = b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"
_OK = b"250 OK\r\n"
_END_OF_DATA = b"\r\n.\r\n"


class Session(asyncio.Protocol):
    """One client's dialogue. `log` is the descriptor of the file, `delay` the seconds from what
    arrives to the answer."""

    def __init__(self, log: int, delay: float) -> None:
        self._log = log
        self._delay = delay
        self._buffer = b""
        self._in_data = False
        self._recipients: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are transports by their methods only.
        self._transport = cast(asyncio.Transport, transport)
        self._say(_GREETING)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._step():
            pass

    def _step(self) -> bool:
        """Take one command or one mail off the buffer; False when neither is complete."""
        end = _END_OF_DATA if self._in_data else b"\r\n"
        head, found, rest = self._buffer.partition(end)
        if not found:
            return False
        self._buffer = rest
        if self._in_data:
            self._accept()
        else:
            self._obey(head)
        return True

    def _accept(self) -> None:
        self._in_data = False
        self._say(_OK)
        moment = time.monotonic_ns()
        lines = "".join(f"{moment} {address}\n" for address in self._recipients)
        self._recipients = []
        os.write(self._log, lines.encode())

    def _obey(self, line: bytes) -> None:
        verb = line[:4].upper()
        if verb == b"EHLO":
            self._say(_EXTENSIONS)
        elif verb == b"DATA":
            self._in_data = True
            self._say(b"354 go ahead\r\n")
        elif verb == b"QUIT":
            self._say(b"221 bye\r\n")
            self._later(self._transport.close)
        else:
            if verb == b"RCPT":
                self._recipients.append(line.decode().partition("<")[2].partition(">")[0])
            self._say(_OK)

    def _say(self, reply: bytes) -> None:
        self._later(self._transport.write, reply)

    def _later(self, act: Callable[..., None], *arguments: bytes) -> None:
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, act, *arguments)
        else:
            act(*arguments)


async def serve(port: int, path: Path, delay: float) -> None:
    """Accept mails until the process is ended."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Session(log, delay), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2]), float((*sys.argv, "0")[3])))

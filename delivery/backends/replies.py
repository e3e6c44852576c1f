"""How a server's replies are read: each has to be there in time, however slowly it drips."""

import smtplib
import socket
import time

from django.conf import settings

_MOST_BYTES = 65_536


class OnTime:
    """For smtplib's clients. Reads what smtplib would, by a deadline for the whole reply: its own
    timeout begins again with every byte."""

    sock: socket.socket | None
    timeout: float
    _source: socket.socket | None = None
    """The socket that the unread bytes came from; TLS begins with another one, and with none."""
    _unread = b""

    @property
    def has_unread(self) -> bool:
        """Something was said that nobody has asked for yet."""
        return self._source is self.sock and bool(self._unread)

    def getreply(self) -> tuple[int, bytes]:
        """The code, -1 where there is none, and the lines of the text. Raises smtplib's exceptions
        and closes the connection when the reply is not there in `EMAIL_TIMEOUT` seconds."""
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("not connected")
        if self._source is not self.sock:
            self._source, self._unread = self.sock, b""
        deadline = time.monotonic() + settings.EMAIL_TIMEOUT
        lines: list[bytes] = []
        size = 0
        try:
            while True:
                line = self._line(self.sock, deadline)
                lines.append(line[4:].strip(b" \t\r\n"))
                size += len(line)
                if not line[:3].isdigit():
                    return -1, b"\n".join(lines)
                if line[3:4] != b"-":
                    return int(line[:3]), b"\n".join(lines)
                if size > _MOST_BYTES:
                    raise smtplib.SMTPServerDisconnected("an endless reply")
        except OSError as error:  # smtplib's are among them
            self.close()  # type: ignore[attr-defined]
            if isinstance(error, smtplib.SMTPException):
                raise
            raise smtplib.SMTPServerDisconnected("no reply") from error

    def _line(self, sock: socket.socket, deadline: float) -> bytes:
        """The next line; what is left of one when the server has hung up in its middle."""
        while (end := self._unread.find(b"\n") + 1) == 0:
            if len(self._unread) > _MOST_BYTES:
                raise smtplib.SMTPServerDisconnected("an endless line")
            read = _received(sock, deadline - time.monotonic())
            if not read:
                if not self._unread:
                    raise smtplib.SMTPServerDisconnected("the server hung up")
                end = len(self._unread)
                break
            self._unread += read
        line, self._unread = self._unread[:end], self._unread[end:]
        return line


def _received(sock: socket.socket, seconds: float) -> bytes:
    usual = sock.gettimeout()
    sock.settimeout(max(seconds, 0.001))
    try:
        return sock.recv(_MOST_BYTES)
    finally:
        sock.settimeout(usual)

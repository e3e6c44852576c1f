"""`python -m bench.esp PORT [DELAY_MS]`: a provider that takes mails over HTTP and counts them.

It answers as those providers do that take many mails in one call, and as Postmark does to one
mail, each after so many milliseconds. `GET /` tells what came in: calls, mails taken, how many of
them it had taken before. Addresses that begin with `dead-` it refuses, as Postmark refuses inactive
recipients.
`GET /storms` makes it answer nothing but 429 for two seconds after every 4,000 mails it takes.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import parse_qs

import msgspec
import uvloop

_STORM_EVERY = 4_000
_STORM_SECONDS = 2.0
_INACTIVE = (
    "You tried to send to a recipient that has been marked as inactive.\n"
    "Found inactive addresses: %s.\nInactive recipients are ones that have generated a hard "
    "bounce or a spam complaint."
)
_decode = msgspec.json.decode
_encode = msgspec.json.encode


class Desk:
    """What came in."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.calls = self.refused = self.doubled = self.storms = 0
        self._taken: set[str] = set()
        self._storm_until = 0.0
        self._next_storm: int | None = None

    def told(self) -> bytes:
        numbers = {"calls": self.calls, "mails": len(self._taken), "doubled": self.doubled}
        return _encode({**numbers, "refused": self.refused, "storms": self.storms})

    def storm(self) -> bytes:
        """From now on there are some."""
        self._next_storm = _STORM_EVERY
        return b"{}"

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        self.calls += 1
        if self._is_stormy():
            return 429, b'{"ErrorCode":429,"Message":"Rate limit exceeded"}'
        if path == _FORM:
            return _mailgun(self, parse_qs(body.decode()))
        return _PATHS[path](self, _decode(body))

    def _is_stormy(self) -> bool:
        now = asyncio.get_running_loop().time()
        if self._next_storm is not None and len(self._taken) >= self._next_storm:
            self._next_storm += _STORM_EVERY
            self._storm_until = now + _STORM_SECONDS
            self.storms += 1
        return now < self._storm_until

    def take(self, address: str, number: str) -> bool:
        """False for an address that is dead."""
        if address.startswith("dead-"):
            self.refused += 1
            return False
        self.doubled += number in self._taken
        self._taken.add(number)
        return True


def _postmark(desk: Desk, told: Any) -> tuple[int, bytes]:
    entry = _postmark_entry(desk, told)
    return (422 if entry["ErrorCode"] else 200), _encode(entry)


def _postmark_batch(desk: Desk, told: Any) -> tuple[int, bytes]:
    return 200, _encode([_postmark_entry(desk, one) for one in told])


def _postmark_entry(desk: Desk, told: Any) -> dict[str, Any]:
    number = told["Metadata"]["message_uuid"]
    if not desk.take(told["To"], number):
        return {"ErrorCode": 406, "Message": _INACTIVE % told["To"]}
    return {"ErrorCode": 0, "Message": "OK", "MessageID": number, "To": told["To"]}


def _resend_batch(desk: Desk, told: Any) -> tuple[int, bytes]:
    for one in told:
        desk.take(one["to"][0], one["headers"]["X-Metadata"])
    return 200, _encode({"data": [{"id": "49a3999c-0ce1-4ea6-ab68-afcd6dc2e794"} for _ in told]})


def _mailjet(desk: Desk, told: Any) -> tuple[int, bytes]:
    messages = told["Messages"]
    for one in messages:
        desk.take(one["To"][0]["Email"], one["EventPayload"])
    done = [{"Status": "success", "To": [{"Email": "", "MessageID": 1}]} for _ in messages]
    return 200, _encode({"Messages": done})


def _brevo(desk: Desk, told: Any) -> tuple[int, bytes]:
    versions = told["messageVersions"]
    for one in versions:
        desk.take(one["to"][0]["email"], one["headers"]["X-Mailin-custom"])
    return 201, _encode({"messageIds": ["<1@smtp-relay.mailin.fr>" for _ in versions]})


def _sendgrid(desk: Desk, told: Any) -> tuple[int, bytes]:
    for one in told["personalizations"]:
        desk.take(one["to"][0]["email"], one["custom_args"]["message_uuid"])
    return 202, b""


def _ses(desk: Desk, told: Any) -> tuple[int, bytes]:
    entries = told["BulkEmailEntries"]
    for one in entries:
        headers = {header["Name"]: header["Value"] for header in one["ReplacementHeaders"]}
        (address,) = one["Destination"]["ToAddresses"]
        desk.take(address, _decode(headers["X-Metadata"])["message_uuid"])
    done = {"Status": "SUCCESS", "MessageId": "0100018b5a1b2c3d-1-000000"}
    return 200, _encode({"BulkEmailEntryResults": [done for _ in entries]})


def _mailgun(desk: Desk, form: dict[str, list[str]]) -> tuple[int, bytes]:
    (variables,) = form["recipient-variables"]
    (metadata,) = form["v:message_uuid"]
    field = metadata.removeprefix("%recipient.").removesuffix("%")
    values = _decode(variables)
    for address in form["to"]:
        desk.take(address, values[address][field])
    return 200, _encode({"id": "<1@example.com>", "message": "Queued. Thank you."})


# Mailgun's names the sending domain, and takes a form.
_FORM = "/example.com/messages"
_PATHS: dict[str, Callable[[Desk, Any], tuple[int, bytes]]] = {
    "/email": _postmark,
    "/email/batch": _postmark_batch,
    "/emails/batch": _resend_batch,
    "/send": _mailjet,
    "/smtp/email": _brevo,
    "/mail/send": _sendgrid,
    "/v2/email/outbound-bulk-emails": _ses,
}


class Session(asyncio.Protocol):
    """One connection, kept open."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._parts: list[bytes] = []
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are transports by their methods only.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parts.append(data)
        self._missing -= len(data)
        if self._missing > 0:
            return
        whole = b"".join(self._parts)
        head, found, body = whole.partition(b"\r\n\r\n")
        self._parts = [whole]
        if not found:
            return
        self._missing = _length(head) - len(body)
        if self._missing <= 0:
            self._parts, self._missing = [], 0
            self._serve(head.split(b" ", 2)[:2], body)

    def _serve(self, line: list[bytes], body: bytes) -> None:
        method, path = line[0], line[1].decode()
        if method == b"GET":
            self._write(200, self._desk.storm() if path == "/storms" else self._desk.told())
            return
        status, text = self._desk.answer(path, body)
        if self._desk.delay:
            loop = asyncio.get_running_loop()
            loop.call_later(self._desk.delay, self._write, status, text)
        else:
            self._write(status, text)

    def _write(self, status: int, text: bytes) -> None:
        wait = b"Retry-After: 2\r\n" if status == 429 else b""
        head = b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n"
        self._transport.write(head % (status, wait, len(text)) + text)


def _length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.split(b"\r\n", 1)[0] or 0)


async def serve(port: int, delay: float) -> None:
    """Take mails until the process is ended."""
    desk = Desk(delay)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Session(desk), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1_000 if len(sys.argv) > 2 else 0.0))

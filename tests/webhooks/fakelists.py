"""Providers' lists and logs on loopback: real HTTP, their paths, their paging, their keys.

Each gives `page_size` entries at a time, whatever it is asked for, so that a handful are pages.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.delivery.fakeesp import Answer

KEY = "key-of-the-account"
Query = Mapping[str, str]


@dataclass(frozen=True)
class Entry:
    """Somebody on a list, since when, and why in the provider's own word."""

    address: str
    at: datetime
    reason: str = ""
    mail: str = ""


class FakeLists(ThreadingHTTPServer):
    """`script` is used up one answer per request; then the truth. `lists` are by the name in the
    path: a stream's, a domain's."""

    daemon_threads = True

    def __init__(self, kind: str, *, page_size: int = 2) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kind, self.page_size = kind, page_size
        self.lists: dict[str, list[Entry]] = {}
        self.log: list[dict[str, Any]] = []
        self.script: list[Answer] = []
        self.requests: list[tuple[str, Query]] = []
        self.over = threading.Event()
        self.before: Callable[[int], None] = lambda number: None
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._lock = threading.Lock()

    def answer(self, path: str, query: Query, headers: Mapping[str, str]) -> Answer:
        with self._lock:
            self.requests.append((path, query))
            number = len(self.requests)
            scripted = self.script.pop(0) if self.script else None
        self.before(number)
        if scripted is not None:
            return scripted
        if not _IS_OURS[self.kind](headers):
            return Answer(401, {"message": "who are you?"})
        return _SPEAK[self.kind](self, path.strip("/"), query)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are cut off are what this server is for."""


def _sendgrid(server: FakeLists, path: str, query: Query) -> Answer:
    if path == "messages":
        wanted = query["query"].partition('"')[2].partition('"')[0]
        found = [mail for mail in server.log if mail["unique_args"]["message_uuid"] == wanted]
        shown = [{k: v for k, v in mail.items() if k != "unique_args"} for mail in found]
        return Answer(body={"messages": shown})
    if path.startswith("messages/"):
        wanted = unquote(path.removeprefix("messages/"))
        found = [mail for mail in server.log if mail["msg_id"] == wanted]
        return Answer(body=found[0]) if found else Answer(404, {})
    name = path.removeprefix("suppression/")
    since, until = (datetime.fromtimestamp(int(query[n]), UTC) for n in ("start_time", "end_time"))
    entries = [e for e in server.lists.get(name, []) if since <= e.at <= until]
    offset = int(query["offset"])
    return Answer(
        body=[
            {
                "created": int(e.at.timestamp()),
                "email": e.address,
                "reason": e.reason,
                "status": e.reason.split(" ")[1] if e.reason else "",
            }
            for e in entries[offset : offset + server.page_size]
        ]
    )


def _brevo(server: FakeLists, path: str, query: Query) -> Answer:
    if path == "smtp/statistics/events":
        found = [mail for mail in server.log if mail["email"] == query["email"]]
        return Answer(body={"events": found} if found else {})
    entries = sorted(server.lists.get("blocked", []), key=lambda e: e.at, reverse=True)
    offset = int(query["offset"])
    return Answer(
        body={
            "count": len(entries),
            "contacts": [
                {
                    "email": e.address,
                    "senderEmail": "",
                    "reason": {"code": e.reason, "message": "says Brevo"},
                    "blockedAt": e.at.isoformat(),
                }
                for e in entries[offset : offset + server.page_size]
            ],
        }
    )


def _mailgun(server: FakeLists, path: str, query: Query) -> Answer:
    domain, name = (unquote(part) for part in path.split("/"))
    if f"{domain}/{name}" not in server.lists and name != "events":
        return Answer(404, {"message": "Domain not found"})
    if name == "events":
        found = [
            e for e in server.log if e["message"]["headers"]["message-id"] == query["message-id"]
        ]
        return Answer(body={"items": found, "paging": {}})
    entries = sorted(server.lists[f"{domain}/{name}"], key=lambda e: e.address)
    page = [e for e in entries if e.address > query.get("address", "")][: server.page_size]
    last = page[-1].address if page else query.get("address", "")
    return Answer(
        body={
            "items": [
                {
                    "address": e.address,
                    "code": "550",
                    "error": e.reason,
                    "created_at": format_datetime(e.at, usegmt=True),
                }
                for e in page
            ],
            # Another host: whoever follows it hands the key to strangers.
            "paging": {
                "next": f"http://192.0.2.1/v3/{domain}/{name}?page=next&address={last}&limit=100"
            },
        }
    )


def _postmark(server: FakeLists, path: str, query: Query) -> Answer:
    if path == "message-streams":
        streams = [name for name in server.lists if name != "bounces"]
        told = [{"ID": name, "MessageStreamType": "Transactional"} for name in streams]
        inbound = {"ID": "a-inbound", "MessageStreamType": "Inbound"}
        return Answer(body={"MessageStreams": [inbound, *told]})
    if path == "messages/outbound":
        wanted = query["metadata_message_uuid"]
        found = [m for m in server.log if m["Metadata"].get("message_uuid") == wanted]
        return Answer(body={"TotalCount": len(found), "Messages": found})
    since = datetime.fromisoformat(query.get("fromdate", "2000-01-01")).replace(tzinfo=UTC)
    if path == "bounces":
        newest = sorted(server.lists.get("bounces", []), key=lambda e: e.at, reverse=True)
        offset = int(query["offset"])
        return Answer(
            body={
                "TotalCount": len(newest),
                "Bounces": [
                    {
                        "ID": 1,
                        "Type": e.reason,
                        "Email": e.address,
                        "MessageID": e.mail,
                        "BouncedAt": e.at.isoformat(),
                    }
                    for e in newest[offset : offset + server.page_size]
                    if e.at >= since
                ],
            }
        )
    stream = path.split("/")[1]
    return Answer(
        body={
            "Suppressions": [
                {
                    "EmailAddress": e.address,
                    "SuppressionReason": e.reason,
                    "Origin": "Recipient",
                    "CreatedAt": e.at.isoformat(),
                }
                for e in server.lists[stream]
                if e.at >= since
            ]
        }
    )


def _ses(server: FakeLists, path: str, query: Query) -> Answer:
    if path != "v2/email/suppression/addresses":
        return Answer(404, {})
    since = datetime.fromisoformat(query.get("StartDate", "2000-01-01T00:00:00Z"))
    entries = [e for e in server.lists.get("suppressions", []) if e.at >= since]
    start = int(query.get("NextToken", "0").removeprefix("token-") or 0)
    page = entries[start : start + server.page_size]
    following = start + len(page)
    return Answer(
        body={
            "SuppressedDestinationSummaries": [
                {
                    "EmailAddress": e.address,
                    "Reason": e.reason,
                    "LastUpdateTime": e.at.timestamp(),
                }
                for e in page
            ],
            **({"NextToken": f"token-{following}"} if following < len(entries) else {}),
        }
    )


_SPEAK: Mapping[str, Callable[[FakeLists, str, Query], Answer]] = {
    "sendgrid": _sendgrid,
    "brevo": _brevo,
    "mailgun": _mailgun,
    "postmark": _postmark,
    "ses": _ses,
}
_IS_OURS: Mapping[str, Callable[[Mapping[str, str]], bool]] = {
    "sendgrid": lambda headers: headers.get("Authorization") == f"Bearer {KEY}",
    "brevo": lambda headers: headers.get("api-key") == KEY,
    "mailgun": lambda headers: (
        # base64 of "api:key-of-the-account"
        headers.get("Authorization") == "Basic YXBpOmtleS1vZi10aGUtYWNjb3VudA=="
    ),
    "postmark": lambda headers: headers.get("X-Postmark-Server-Token") == KEY,
    "ses": lambda headers: f"Credential={KEY}/" in headers.get("Authorization", ""),
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeLists

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        answer = self.server.answer(parts.path, query, self.headers)
        if answer.seconds:
            time.sleep(answer.seconds)
        if answer.do is not None:
            answer.do(self)  # type: ignore[arg-type]
            self.close_connection = True
            return
        text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Quietly."""


@contextmanager
def fake_lists(kind: str, *, page_size: int = 2) -> Iterator[FakeLists]:
    """A running one."""
    with FakeLists(kind, page_size=page_size) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()

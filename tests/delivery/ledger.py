"""What a provider has taken: an append-only file, on the disk before the provider answers.

It is the other side's book. What stands in it was accepted, whatever became of the caller, of
the answer, or of the database that should have known.
"""

import hashlib
import json
import os
import re
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from uuid import UUID

_UUID = rb"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
_NAMES = (
    re.compile(_UUID + rb"\.[0-9a-f]{8}(?:@|%40)"),
    re.compile(rb"message_uuid[^0-9a-f]+" + _UUID),
)


class Taken(NamedTuple):
    """One acceptance of one message. `at` in Unix seconds; `key` the caller's idempotency key."""

    at: float
    message_id: UUID
    digest: str
    key: str


class Ledger:
    """One provider's. Without a path its file has no name, and is gone with the test."""

    opened: ClassVar[list["Ledger"]] = []
    """Those without a path, so that the audit after the test can look into them."""

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            self._file: Any = tempfile.TemporaryFile("a+b", buffering=0)  # noqa: SIM115 - kept open
            self.opened.append(self)
        else:
            self._file = path.open("a+b", buffering=0)
        self._lock = threading.Lock()

    def take(self, message_id: UUID, body: bytes, key: str = "") -> None:
        """Accept. When this returns no crash can undo it."""
        digest = hashlib.sha256(body).hexdigest()
        line = json.dumps([time.time(), str(message_id), digest, key]) + "\n"
        with self._lock:
            self._file.write(line.encode())
            os.fsync(self._file.fileno())

    def entries(self) -> list[Taken]:
        """Everything that was accepted, in order, as the file has it."""
        size = os.fstat(self._file.fileno()).st_size
        return _parsed(os.pread(self._file.fileno(), size, 0))

    def counts(self) -> Counter[UUID]:
        """How many times each message was accepted."""
        return Counter(entry.message_id for entry in self.entries())

    def close(self) -> None:
        self._file.close()

    @classmethod
    def close_all(cls) -> None:
        """At the end of a test."""
        for ledger in cls.opened:
            ledger.close()
        cls.opened.clear()


def read_ledger(path: Path) -> list[Taken]:
    """What somebody else's ledger says at this moment."""
    return _parsed(path.read_bytes())


def messages_in(mail: bytes) -> set[UUID]:
    """The messages whose Message-ID or metadata stands in what was handed over."""
    return {UUID(found.decode()) for name in _NAMES for found in name.findall(mail)}


def _parsed(lines: bytes) -> list[Taken]:
    rows = (json.loads(line) for line in lines.splitlines())
    return [Taken(at, UUID(message_id), digest, key) for at, message_id, digest, key in rows]

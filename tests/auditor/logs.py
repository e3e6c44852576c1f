"""What was logged during a test, held against two invariants: I9, no address and no secret in any
line; I10, no traceback at ERROR that the test does not expect."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from django.conf import settings

from emailauto.logs import LineFormatter

_OURS = frozenset(
    "emailauto monitoring preferences webhooks campaigns delivery content contacts events"
    " suppression common".split()
)
# Servers that a test runs for the other side: what they say is not ours.
_THEIRS = frozenset(("mail", "werkzeug"))

# Not the one the log's own masking goes by. Bounded, or a long word would take for ever.
_ADDRESS = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
_TOKEN = re.compile(r"emauto_live_[a-z0-9]{8}_[a-z0-9]{32,}")
_NAMES = ("_KEY", "_SECRET", "_TOKEN", "PASSWORD")
_SHORTEST = 8
"""Below that, what the tests call a key may stand in any sentence."""


class Logbook(logging.Handler):
    """Keeps breaches, not records: those hold the frames of what went wrong alive."""

    def __init__(self) -> None:
        super().__init__()
        self.breaches: list[str] = []
        self._formatter = LineFormatter()

    def emit(self, record: logging.LogRecord) -> None:
        package = record.name.partition(".")[0]
        if package in _THEIRS:
            return
        line = self._formatter.format(record)
        if _TOKEN.search(line) or any(secret in line for secret in _secrets()):
            self._note("I9", "a secret", record)
        # The masking is for texts of others. In our own there is nothing to mask.
        if _ADDRESS.search(_told(record) if package in _OURS else line):
            self._note("I9", "an address", record)
        if record.levelno >= logging.ERROR and record.exc_info:
            self._note("I10", f"a traceback ({record.exc_info[0]})", record)

    def _note(self, invariant: str, what: str, record: logging.LogRecord) -> None:
        self.breaches.append(f"{invariant}: {what} in a line of {record.name}: {record.msg!r}")


@contextmanager
def open_logbook() -> Iterator[Logbook]:
    """One that hears everything the application would write."""
    logbook = Logbook()
    logging.getLogger().addHandler(logbook)
    try:
        yield logbook
    finally:
        logging.getLogger().removeHandler(logbook)


def _told(record: logging.LogRecord) -> str:
    """The message and what was said in `extra`, as our code wrote it."""
    return f"{record.getMessage()} {record.__dict__ | _SILENT}"


# What the interpreter adds to a record is not what was told.
_SILENT = dict.fromkeys(("exc_info", "exc_text", "msg", "args", "message", "pathname"))


def _secrets() -> set[str]:
    given = (value for name, value in os.environ.items() if name.endswith(_NAMES))
    urls = (urlsplit(os.environ.get(name, "")) for name in ("DATABASE_URL", "REDIS_URL"))
    known = {
        *(settings.SECRET_KEY, settings.ADDRESS_HASH_KEY, *settings.WEBHOOK_SECRET),
        *given,
        *(url.password or "" for url in urls),
    }
    return {secret for secret in known if len(secret) >= _SHORTEST}

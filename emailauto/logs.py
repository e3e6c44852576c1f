"""Log lines: one per record, ids as `key=value`, never an address or the token of a link."""

import logging
import re

from common.addresses import mask_addresses

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


# Who has the token may use the link, for ever.
_TOKEN = re.compile(r"(/(?:t/)?[a-z]/)[\w=-]{20,}")


class LineFormatter(logging.Formatter):
    """`time level logger message key=value …`; whatever looks like an address or like the link of
    a mail is masked.

    The masking is a net below the rule, not the rule: code logs ids. Exception texts of SMTP
    servers and drivers quote addresses, and those we do not write ourselves.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        fields = {k: v for k, v in record.__dict__.items() if k not in _STANDARD}
        extra = "".join(f" {k}={v}" for k, v in fields.items() if k not in {"data", "request"})
        head, newline, trace = super().format(record).partition("\n")
        return mask_addresses(_TOKEN.sub(r"\1***", f"{head}{extra}{newline}{trace}"))

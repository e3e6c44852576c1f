"""Log lines: one per record, ids as `key=value`, never an address."""

import logging
import re

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
# Bounded and without "@" in either part: an unbounded one takes seconds over a long token.
_ADDRESS = re.compile(r"[^\s<>()\"'=,;:@]{1,64}@[^\s<>()\"'=,;@]{1,255}")


class LineFormatter(logging.Formatter):
    """`time level logger message key=value …`; whatever looks like an address is masked.

    The masking is a net below the rule, not the rule: code logs ids. Exception texts of SMTP
    servers and drivers quote addresses, and those we do not write ourselves.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        fields = {k: v for k, v in record.__dict__.items() if k not in _STANDARD}
        extra = "".join(f" {k}={v}" for k, v in fields.items() if k not in {"data", "request"})
        head, newline, trace = super().format(record).partition("\n")
        return _ADDRESS.sub("***@***", f"{head}{extra}{newline}{trace}")

"""The invariant auditor: what has to be true of the tables after every test, whatever it did.

`audit()` looks at the rows and at what providers say they took, never at the code that wrote them.
tests/conftest.py runs it after each test with a database, before that is flushed or rolled back;
tests/test_auditor.py breaks each invariant on purpose. I9 and I10 are about logs: `auditor.logs`.
"""

from collections.abc import Iterable

from tests.auditor.mail import (
    caps_are_kept,
    nothing_is_taken_twice,
    whoever_said_no_is_left_alone,
)
from tests.auditor.queries import selected
from tests.auditor.rows import (
    everything_has_its_reason,
    no_lease_is_forgotten,
    none_is_missing,
    nothing_is_stuck,
    nothing_waits,
    one_message_per_step,
    what_is_counted_is_right,
)
from tests.delivery.ledger import Taken


def audit(
    *,
    ledger: Iterable[Taken] = (),
    accepted: Iterable[str] = (),
    lease_seconds: int = 120,
    at_rest: bool = False,
) -> list[str]:
    """Every breach of an invariant, in words that begin with its name; empty when all is sound.

    `ledger` is what providers outside the database have taken, `accepted` the ids of events that
    were answered 202. `at_rest`: everybody has had their time, so nothing may be waiting.
    """
    taken = list(ledger)
    breaches = {
        "I1": nothing_is_stuck() + none_is_missing(accepted) + (nothing_waits() if at_rest else []),
        "I2": one_message_per_step(),
        "I3": nothing_is_taken_twice(taken),
        "I4": no_lease_is_forgotten(lease_seconds),
        "I5": whoever_said_no_is_left_alone(taken),
        "I6": caps_are_kept(),
        "I7": what_is_counted_is_right(),
        "I8": everything_has_its_reason(),
    }
    return [f"{name}: {breach}" for name, found in breaches.items() for breach in found]


def is_empty() -> bool:
    """Whether there is nothing to audit."""
    tables = (
        *("events_event", "webhooks_receipt", "campaigns_enrollment", "delivery_message"),
        *("delivery_sandboxmail", "delivery_quota", "contacts_consent", "contacts_subscription"),
    )
    some = " OR ".join(f"EXISTS (SELECT FROM {table})" for table in tables)
    return not selected(f"SELECT {some}")[0][0]

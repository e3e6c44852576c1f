"""Amazon SES: the suppression list of the account. It has no log to ask, only its events.

https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_ListSuppressedDestinations.html
"""

import time
from typing import Any

from delivery.bounces import BounceClass
from webhooks.reading import list_at, text_at
from webhooks.reconciliation.asking import Desk
from webhooks.reconciliation.entries import entry
from webhooks.reconciliation.sources import Page, Source, Window

NAME = "ses"

_PAGE = 1_000
# It answers one such call per second.
PAUSE_SECONDS = 1.0

_REASONS = {"BOUNCE": BounceClass.HARD, "COMPLAINT": BounceClass.COMPLAINT}


def fetch(desk: Desk, window: Window, page: str) -> Page:
    """A page of the account's list; SES itself leaves out what is older than the window."""
    if page:
        time.sleep(PAUSE_SECONDS)
    parameters: dict[str, Any] = {"Reasons": list(_REASONS), "PageSize": _PAGE}
    if window.since is not None:
        parameters["StartDate"] = window.since
    if page:
        parameters["NextToken"] = page
    from webhooks.reconciliation import amazon  # boto3 need not be installed

    client = desk.clients.get(NAME) or desk.clients.setdefault(NAME, amazon.client(desk.options))
    answer = amazon.list_suppressed(client, parameters)
    entries = list_at(answer, "SuppressedDestinationSummaries")
    feedback = [
        entry(
            NAME,
            _REASONS[text_at(raw, "Reason")],
            address=text_at(raw, "EmailAddress"),
            at=raw.get("LastUpdateTime") or window.until,
            words=(text_at(raw, "Reason"),),
        )
        for raw in entries
        if text_at(raw, "Reason") in _REASONS
    ]
    return Page(feedback, text_at(answer, "NextToken"), told=entries)


SOURCE = Source(lists={"suppressions": fetch})

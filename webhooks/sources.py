"""Everything receipts come from: the providers' webhooks, and the bounce mailbox.

Only the former are an address on the web: `webhooks.api` asks `ADAPTERS`, and for `mailbox` finds
nothing.
"""

from collections.abc import Mapping

from webhooks.adapters import Source
from webhooks.mailbox import reports
from webhooks.providers import ADAPTERS

SOURCES: Mapping[str, Source] = {**ADAPTERS, reports.NAME: Source(parse=reports.parse)}

"""The providers whose webhooks are taken, by the name in the URL.

The name is also that of the provider's backend (`delivery.models.Provider.Backend`), by which
its messages are found again.
"""

from collections.abc import Mapping

from webhooks import postmark
from webhooks.adapters import Adapter

ADAPTERS: Mapping[str, Adapter] = {postmark.NAME: postmark.ADAPTER}

"""The links in a mail that are its recipient's own.

Each is a token over the message's id, for one purpose, without an address and without an expiry:
a mail may be opened years later. Built from `PUBLIC_URL`, never from a request.
"""

from uuid import UUID

from django.conf import settings

from common.signing import sign_uuid

UNSUBSCRIBE = "unsubscribe"
PREFERENCES = "preferences"
VIEW = "view"
CONFIRM = "confirm"
PERSONAL_DATA = "personal-data"

_PATHS = {UNSUBSCRIBE: "u", PREFERENCES: "p", VIEW: "v", CONFIRM: "c", PERSONAL_DATA: "d"}


def link(purpose: str, uuid: UUID) -> str:
    """The message's link for one of the purposes above."""
    return f"{settings.PUBLIC_URL}/{_PATHS[purpose]}/{sign_uuid(purpose, uuid)}"


def unsubscribe_url(uuid: UUID) -> str:
    """The recipient's way out; works for as long as the message exists."""
    return link(UNSUBSCRIBE, uuid)

"""Which path is which wire format."""

from events import cloudevents, native, segment
from events.exchange import WireFormat

_SEGMENT = "/segment/v1/"


def route(path: str) -> tuple[WireFormat, str] | None:
    """The format of a path, and what follows the format's prefix; None when it is none of ours."""
    if path == "/api/v1/events":
        return native, ""
    path = path.removesuffix("/")
    if path == "/cloudevents":
        return cloudevents, ""
    if path.startswith(_SEGMENT):
        return segment, path.removeprefix(_SEGMENT)
    return None

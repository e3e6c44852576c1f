"""The ids of events that were erased.

An id may name its person (`order-of-ada@example.com`), and it is also what keeps the event from
being taken a second time. So a keyed digest stands in its place, which the intake looks up, too.
"""

PREFIX = "erased:"

ANY_ERASED = f"SELECT FROM events_event WHERE event_id LIKE '{PREFIX}%%'"
"""Served by an index of these rows alone: where no id was ever erased, none is looked up."""


def erased_id(source: str, event_id: str, key: str) -> str:
    """SQL for what stands in the place of an id: of two columns and a parameter, the secret of
    `ADDRESS_HASH_KEY`, without which the id could be guessed back."""
    text = f"concat_ws(chr(10), {key}::text, {source}, {event_id})"
    return f"'{PREFIX}' || encode(sha256(convert_to({text}, 'UTF8')), 'hex')"

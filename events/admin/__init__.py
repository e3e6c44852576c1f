"""The admin of events: the inbox as a log, what was refused, event types, and the keys of those
who post."""

from events.admin import events, keys, rejections, types

__all__ = ["events", "keys", "rejections", "types"]

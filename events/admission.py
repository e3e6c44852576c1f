"""Who is let in: the checks between a well-formed event and the inbox. Pure but for settings."""

from collections.abc import Sequence

import msgspec
from django.conf import settings

from events import native, residency
from events.directory import Rules
from events.states import RefusalCode
from events.wire import EventIn, Item, Problem, Refusal


def admit(items: Sequence[Item], rules: Rules, *, keeps_refused: bool = False) -> list[Item]:
    """Each event, or the refusal it meets; refusals pass through. With `keeps_refused` a refusal
    holds the event it was, unless it may not be held here.

    The region of known people is not looked at here but by `services.submit`, which may ask the
    database.
    """
    fresh: dict[str, set[str]] = {}
    admitted = [
        _admitted(item, rules, fresh) if isinstance(item, EventIn) else item for item in items
    ]
    if not keeps_refused:
        return admitted
    return [_with_body(*pair) for pair in zip(items, admitted, strict=True)]


def refuse(event: Item, code: RefusalCode, problems: Sequence[Problem]) -> Refusal:
    """The refusal of an event. What may not be held here is not even named."""
    if code is RefusalCode.RESIDENCY:
        return Refusal(code, tuple(problems), event.source, event.event_id)
    return Refusal(code, tuple(problems), event.source, event.event_id, event.type)


def refuse_region(event: Item) -> Refusal:
    """The refusal of an event whose content must not be kept."""
    problem = Problem("metadata.region", "events of this region may not be held here")
    return refuse(event, RefusalCode.RESIDENCY, [problem])


def _with_body(posted: Item, admitted: Item) -> Item:
    if isinstance(posted, Refusal) or isinstance(admitted, EventIn):
        return admitted
    if admitted.code is RefusalCode.RESIDENCY:
        return admitted
    return msgspec.structs.replace(admitted, body=native.as_document(posted))


def _admitted(event: EventIn, rules: Rules, fresh: dict[str, set[str]]) -> Item:
    named = residency.named_region(event.metadata)
    if named and not residency.may_hold(named):
        return refuse_region(event)
    if event.type not in rules.schemas:
        return _unregistered(event, rules, fresh.setdefault(event.producer, set()))
    check = rules.schemas[event.type]
    if check is not None and (problems := check(event.payload)):
        return refuse(event, RefusalCode.SCHEMA, problems)
    return event


def _unregistered(event: EventIn, rules: Rules, fresh: set[str]) -> Item:
    policy = settings.EMAILAUTO.events
    if policy.unregistered_types == "refuse":
        problem = Problem("event_type", "is not registered here")
        return refuse(event, RefusalCode.UNREGISTERED, [problem])
    seen = rules.seen.get(event.producer, frozenset())
    if event.type in seen or event.type in fresh:
        return event
    if len(seen) + len(fresh) >= policy.max_unregistered_types:
        problem = Problem("event_type", f"is name {policy.max_unregistered_types + 1} or later")
        return refuse(event, RefusalCode.TOO_MANY_TYPES, [problem])
    fresh.add(event.type)
    return event

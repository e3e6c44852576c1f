"""Which campaigns an event starts, without asking each of a thousand.

Where a rule demands that a path holds one of certain values (`payload.sku eq "a-1"`, alone or
beside others that have to hold as well), the event's own value there leads to it. Only rules that
demand nothing of the kind are asked one by one. The index leaves out; the condition decides.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from campaigns.plan import RulePlan
from campaigns.plans import Listening
from contacts.conditions import lookup, value_key

Match = tuple[Listening, RulePlan]


class Listeners:
    """The campaigns with a rule on one event type, in the order they are asked in."""

    def __init__(self, event_type: str, listening: Sequence[Listening]) -> None:
        self._event_type = event_type
        self._listening = listening
        self._always: set[int] = set()
        self._by_value: dict[str, dict[Any, list[int]]] = defaultdict(lambda: defaultdict(list))
        for position, entry in enumerate(listening):
            for rule in self._rules(entry):
                self._index(rule, position)

    def matches(self, facts: Mapping[str, Any]) -> list[Match]:
        """The campaigns the event starts, each with the first of its rules that is true."""
        candidates = set(self._always)
        for path, by_value in self._by_value.items():
            candidates.update(by_value.get(value_key(lookup(facts, path)), ()))
        return list(self._true_of(facts, sorted(candidates)))

    def unmatched(self, matches: Sequence[Match], *, limit: int) -> tuple[list[Listening], int]:
        """The first campaigns of which no rule was true, and how many more there are."""
        started = {listening.plan.campaign_id for listening, _ in matches}
        others = (entry for entry in self._listening if entry.plan.campaign_id not in started)
        first = list(islice(others, limit))
        return first, len(self._listening) - len(matches) - len(first)

    def _index(self, rule: RulePlan, position: int) -> None:
        if rule.demand is None:
            self._always.add(position)
            return
        path, keys = rule.demand
        for key in keys:
            self._by_value[path][key].append(position)

    def _rules(self, listening: Listening) -> Iterator[RulePlan]:
        return (rule for rule in listening.plan.rules if rule.event_type == self._event_type)

    def _true_of(self, facts: Mapping[str, Any], positions: Sequence[int]) -> Iterator[Match]:
        for position in positions:
            listening = self._listening[position]
            rule = next((rule for rule in self._rules(listening) if rule.matches(facts)), None)
            if rule is not None:
                yield listening, rule

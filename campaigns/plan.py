"""A published revision as the engine reads it: frozen values and compiled conditions. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from campaigns.states import EXIT, SECONDS_PER, StepKind
from contacts.conditions import Predicate, compile_condition, demanded_values


@dataclass(frozen=True, slots=True)
class RulePlan:
    """When an event of this type starts the campaign."""

    event_type: str
    matches: Predicate
    entry_key_path: str = ""
    demand: tuple[str, frozenset[Any]] | None = None
    """A path and what it has to hold for the rule to be true: `conditions.demanded_values`."""


class StepPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One step. `on_event` and `on_timeout` are step keys, `exit`, or empty for "the next"."""

    key: str
    kind: StepKind
    template_id: int | None = None
    wait_amount: int = 0
    wait_unit: str = "seconds"
    event_type: str = ""
    match_path: str = ""
    on_event: str = ""
    on_timeout: str = ""

    @property
    def wait_seconds(self) -> int:
        return self.wait_amount * SECONDS_PER[self.wait_unit]


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole campaign."""

    campaign_id: int
    campaign_key: str
    revision_id: int
    stream: str
    topic_id: int | None
    sender_id: int | None
    rules: tuple[RulePlan, ...]
    steps: tuple[StepPlan, ...]
    by_key: Mapping[str, int] = field(default_factory=dict)
    awaited_types: frozenset[str] = frozenset()
    """The event types that its steps wait for."""

    def first(self) -> StepPlan | None:
        return self.steps[0] if self.steps else None

    def step(self, key: str) -> StepPlan | None:
        position = self.by_key.get(key)
        return None if position is None else self.steps[position]

    def after(self, step: StepPlan, target: str = "") -> StepPlan | None:
        """The step a target leads to: empty = the next one; None = the end.

        Only forward: a target that no longer exists or stands before this step ends in the next
        surviving step, so that an edit can never make a loop.
        """
        if target == EXIT:
            return None
        position = self.by_key[step.key] + 1
        wanted = self.by_key.get(target, position)
        position = max(position, wanted)
        return self.steps[position] if position < len(self.steps) else None


def build_plan(
    *, campaign_id: int, campaign_key: str, revision_id: int, snapshot: Mapping[str, Any]
) -> Plan:
    """Read a snapshot; raises what is wrong with it, which publishing has ruled out."""
    rules = tuple(
        RulePlan(
            rule["event_type"],
            compile_condition(rule.get("condition")),
            rule.get("entry_key_path", ""),
            demanded_values(rule.get("condition")),
        )
        for rule in snapshot["rules"]
    )
    steps = tuple(msgspec.convert(step, StepPlan) for step in snapshot["steps"])
    return Plan(
        campaign_id=campaign_id,
        campaign_key=campaign_key,
        revision_id=revision_id,
        stream=snapshot["stream"],
        topic_id=snapshot["topic_id"],
        sender_id=snapshot["sender_id"],
        rules=rules,
        steps=steps,
        by_key={step.key: position for position, step in enumerate(steps)},
        awaited_types=frozenset(step.event_type for step in steps if step.event_type),
    )

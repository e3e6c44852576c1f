"""A campaign's draft as sentences, for the page that shows its way. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from campaigns.models import Rule, Step
from campaigns.states import EXIT, StepKind
from contacts.forms import in_words

_ICONS: dict[str, str] = {
    StepKind.SEND_EMAIL: "mail",
    StepKind.DELAY: "hourglass_empty",
    StepKind.WAIT_FOR_EVENT: "notifications_active",
    StepKind.EXIT: "logout",
}


@dataclass(frozen=True, slots=True)
class Stop:
    """One station of the way."""

    icon: str
    title: str
    text: str = ""
    waiting: int = 0
    key: str = ""


def flow_of(rules: Iterable[Rule], steps: Iterable[Step], waiting: Mapping[str, int]) -> list[Stop]:
    """What starts the campaign, then what happens, in order, with the people who wait there."""
    return [
        *(_start(rule) for rule in rules),
        *(_stop(step, waiting.get(step.key, 0)) for step in steps),
    ]


def _start(rule: Rule) -> Stop:
    parts = []
    if rule.condition:
        parts.append(f"if {in_words(rule.condition)}")
    if rule.entry_key_path:
        parts.append(f"once per {rule.entry_key_path}")
    return Stop("bolt", f"When {rule.event_type} arrives", ", ".join(parts))


def _stop(step: Step, waiting: int) -> Stop:
    title, text = _words(step)
    return Stop(_ICONS[step.kind], title, text, waiting, step.key)


def _words(step: Step) -> tuple[str, str]:
    if step.kind == StepKind.SEND_EMAIL:
        return f"Send “{step.template or 'no template yet'}”", ""
    if step.kind == StepKind.DELAY:
        return f"Wait {_time(step)}", ""
    if step.kind == StepKind.EXIT:
        return "Leave the campaign", ""
    same = f" with the same {step.match_path}" if step.match_path else ""
    text = f"If it arrives: {_target(step.on_event)}. If not: {_target(step.on_timeout)}."
    return f"Wait up to {_time(step)} for {step.event_type or 'no event yet'}{same}", text


def _time(step: Step) -> str:
    if not step.wait_amount:
        return "no time yet"
    unit = step.wait_unit.removesuffix("s") if step.wait_amount == 1 else step.wait_unit
    return f"{step.wait_amount} {unit}"


def _target(target: str) -> str:
    if target == EXIT:
        return "leave"
    return f"go to {target}" if target else "go on"

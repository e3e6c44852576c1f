"""Parts of a template over data: by their compiled code, or by python-liquid where that stops."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from liquid.exceptions import LiquidError
from liquid.output import LimitedStringIO
from liquid.template import BoundTemplate

from content.compiled.nodes import Code, compile_nodes
from content.sandbox import MAX_OUTPUT, Context

_NO_NAMES: Mapping[str, object] = {}


@dataclass(frozen=True, slots=True)
class Part:
    """A parsed template, its outputs placed."""

    template: BoundTemplate
    code: Code | None
    """None when python-liquid has to run it."""


def part_of(template: BoundTemplate, frame_names: Iterable[str] = ()) -> Part:
    """The part, compiled; `frame_names` are those that `run` is going to have for it."""
    return Part(template, compile_nodes(template.nodes, frozenset(frame_names)))


def run(
    parts: Sequence[Part], data: dict[str, object], frame: Mapping[str, object] = _NO_NAMES
) -> list[str]:
    """The text of each part, all over one context and within one budget; the names in `frame` are
    known to the first of them alone. Raises what python-liquid raises."""
    try:
        return run_code(parts, Context(parts[0].template, globals=data), frame)
    except Exception:  # noqa: BLE001 - python-liquid finds it, too, and knows its line
        return run_liquid(parts, Context(parts[0].template, globals=data), frame)


def run_code(
    parts: Sequence[Part], context: Context, frame: Mapping[str, object] = _NO_NAMES
) -> list[str]:
    """`run` by the compiled code. Raises anything where that cannot go on, which tells nothing
    about the template."""
    return _in_turn(_by_code, parts, context, frame)


def run_liquid(
    parts: Sequence[Part], context: Context, frame: Mapping[str, object] = _NO_NAMES
) -> list[str]:
    """`run` by python-liquid alone: what the compiled code has to equal."""
    return _in_turn(_by_liquid, parts, context, frame)


def _in_turn(
    write: Callable[[Part, Context, Mapping[str, object]], str],
    parts: Sequence[Part],
    context: Context,
    frame: Mapping[str, object],
) -> list[str]:
    first, *others = parts
    context.scope.push(frame)
    texts = [write(first, context, frame)]
    context.scope.pop()
    texts += [write(part, context, _NO_NAMES) for part in others]
    return texts


def _by_code(part: Part, context: Context, frame: Mapping[str, object]) -> str:
    if part.code is None:
        return _by_liquid(part, context, frame)
    return part.code(context, frame)


def _by_liquid(part: Part, context: Context, _frame: Mapping[str, object]) -> str:
    buffer = LimitedStringIO(limit=MAX_OUTPUT)
    for node in part.template.nodes:
        try:
            node.render(context, buffer)
        except LiquidError as error:
            error.token = error.token or node.token
            raise
    return buffer.getvalue()

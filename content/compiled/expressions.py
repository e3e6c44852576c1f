"""Liquid's expressions as Python's. What is written here is fixed but for the numbers of
constants, loops and so on; see the package."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from liquid.builtin.expressions import (
    BooleanExpression,
    Filter,
    FilteredExpression,
    KeywordArgument,
    Nil,
    Path,
    StringLiteral,
)
from liquid.builtin.expressions.logical import (
    ContainsExpression,
    EqExpression,
    GeExpression,
    GtExpression,
    LeExpression,
    LogicalAndExpression,
    LogicalOrExpression,
    LtExpression,
    NeExpression,
)
from liquid.builtin.expressions.primitive import (
    Empty,
    FalseLiteral,
    FloatLiteral,
    IntegerLiteral,
    TrueLiteral,
)
from liquid.expression import Expression

from content.sandbox import RESERVED, SANDBOX, TEXT_PIECE, BlankValue, Range

# Python's own parser ends at 200 open brackets.
_DEEPEST = 60
_FORLOOP: Final[Mapping[str, str]] = {
    "index": "(i{0} + 1)",
    "index0": "i{0}",
    "rindex": "(m{0} - i{0})",
    "rindex0": "(m{0} - i{0} - 1)",
    "first": "(i{0} == 0)",
    "last": "(i{0} == m{0} - 1)",
    "length": "m{0}",
}
"""What is known of a loop without an object for it."""
# Their handling by `filtered` would differ from python-liquid's.
_TAKEN_NAMES = frozenset({"value", "context", "environment"})


class Unsupported(Exception):
    """This stays python-liquid's."""


@dataclass(slots=True)
class Loop:
    """A loop around what is being written; `x1` is its item, `i1` the index, `m1` the length."""

    number: int
    variable: str
    is_counted: bool = False
    """Whether the index is needed."""
    is_known: bool = False
    """Whether the context has to know of it, because something inside looks there."""
    is_exposed: bool = False
    """Whether something inside may get hold of `forloop` itself. It is an iterator: to look at it
    may be to move it on, and the index at hand is wrong from there."""


class Expressions:
    """Writes expressions; collects the constants and what they need of the loops around them."""

    def __init__(self, frame_names: Collection[str]) -> None:
        self.constants: dict[str, object] = {}
        self.loops: list[Loop] = []
        self._frame_names = frozenset(frame_names)

    def constant(self, value: object) -> str:
        """The name of a new constant."""
        name = f"k{len(self.constants)}"
        self.constants[name] = value
        return name

    def needs_context(self, *, exposed: bool) -> None:
        """From here the loops have to be known to the context, perhaps with their `forloop`."""
        for loop in self.loops:
            loop.is_known = True
            loop.is_exposed |= exposed

    def value(self, expression: Expression) -> str:
        """Python that gives what the expression evaluates to. Raises `Unsupported`."""
        return _not_too_deep(self._value(expression))

    def condition(self, expression: Expression) -> str:
        """Python that gives whether it is truthy, as a bool. Raises `Unsupported`."""
        return _not_too_deep(self._condition(expression))

    def equality(self, left: str, right: Expression) -> str:
        """Python that gives whether `left`, which is Python already, equals `right`."""
        if isinstance(right, BlankValue):
            return f"blank({left})"
        if isinstance(right, StringLiteral | Nil):
            return f"({left} == {self._value(right)})"
        return f"eq({left}, {self._value(right)})"

    def _value(self, expression: Expression) -> str:
        match expression:
            case Path():
                return self._path(expression)
            case FilteredExpression():
                value = self._value(expression.left)
                for used in expression.filters or ():
                    value = self._filtered(value, used)
                return value
            case Nil():
                return "None"
            case TrueLiteral():
                return "True"
            case FalseLiteral():
                return "False"
            case StringLiteral() | IntegerLiteral() | FloatLiteral():
                return self.constant(expression.value)
            case BlankValue() | Empty():
                return self.constant(expression)
            case Range():
                return f"range_of({self._value(expression.start)}, {self._value(expression.stop)})"
        return self._condition(expression)

    def _condition(self, expression: Expression) -> str:
        match expression:
            case BooleanExpression():
                return self._condition(expression.expression)
            case LogicalAndExpression() | LogicalOrExpression():
                return self._logical(expression)
            case EqExpression():
                return self.equality(self._value(expression.left), expression.right)
            case NeExpression():
                equal = self.equality(self._value(expression.left), expression.right)
                return f"(not {equal})"
            case LtExpression():
                return self._call("lt", expression.left, expression.right)
            case GtExpression():
                return self._call("lt", expression.right, expression.left)
            case LeExpression():
                return self._call("le", expression.left, expression.right)
            case GeExpression():
                return self._call("le", expression.right, expression.left)
            case ContainsExpression():
                return self._call("contains", expression.left, expression.right)
            case Path() | FilteredExpression() | Range():
                value = self._value(expression)
            case Nil() | TrueLiteral() | FalseLiteral() | StringLiteral() | IntegerLiteral():
                value = self._value(expression)
            case FloatLiteral() | BlankValue() | Empty():
                value = self._value(expression)
            case _:
                raise Unsupported
        return f"((v := {value}) is not None and v is not False and v.__class__ is not Undefined)"

    def _logical(self, expression: LogicalAndExpression | LogicalOrExpression) -> str:
        word = "and" if isinstance(expression, LogicalAndExpression) else "or"
        # Liquid reads them from the right: `a or b or c` is `a or (b or c)`, in one row here.
        row, last = [self._condition(expression.left)], expression.right
        while isinstance(last, type(expression)):
            row.append(self._condition(last.left))
            last = last.right
        row.append(self._condition(last))
        return f"({f' {word} '.join(row)})"

    def _call(self, function: str, left: Expression, right: Expression) -> str:
        return f"{function}({self._value(left)}, {self._value(right)})"

    def _path(self, path: Path) -> str:
        root, *steps = path.path
        if not isinstance(root, str):
            raise Unsupported
        value = self._forloop(root, steps)
        if value is not None:
            return value
        value = self._root(root)
        for step in steps:
            value = self._step(value, step)
        is_free = (
            f"(v := {value}) is None or v.__class__ is str and len(v) < {TEXT_PIECE}"
            " or v.__class__ is int"
        )
        return f"(v if {is_free} else charged(context, v))"

    def _forloop(self, root: str, steps: list[Any]) -> str | None:
        """`forloop.index` and the like, which are numbers at hand."""
        if root != "forloop" or not self.loops or len(steps) != 1:
            return None
        known = _FORLOOP.get(steps[0]) if isinstance(steps[0], str) else None
        if known is None:
            return None
        self.loops[-1].is_counted = True
        return known.format(self.loops[-1].number)

    def _root(self, name: str) -> str:
        for loop in reversed(self.loops):
            if name == loop.variable:
                return f"x{loop.number}"
            if name == "forloop":
                self.needs_context(exposed=True)
                return f"f{loop.number}"
        key = self.constant(name)
        if name in self._frame_names:
            return f"frame.get({key})"
        if name in RESERVED:
            return f"G.get({key})"
        return f"(L[{key}] if {key} in L else G.get({key}))"

    def _step(self, value: str, step: Any) -> str:
        if isinstance(step, Path):
            return f"item(context, {value}, {self._value(step)})"
        key = self.constant(step)
        if step == "size":
            return f"size_of(context, {value}, {key})"
        if not isinstance(step, str) or step in ("first", "last"):
            return f"item(context, {value}, {key})"
        return f"(v.get({key}) if (v := {value}).__class__ is dict else item(context, v, {key}))"

    def _filtered(self, value: str, used: Filter) -> str:
        written = ["context", self.constant(self._function(used.name)), value]
        options: list[str] = []
        for argument in used.args:
            argued = self._value(argument.value)
            if not isinstance(argument, KeywordArgument):
                written.append(argued)
            elif argument.name in _TAKEN_NAMES:
                raise Unsupported
            else:
                options.append(f"**{{{self.constant(argument.name)}: {argued}}}")
        if getattr(SANDBOX.filters[used.name], "with_context", False):
            self.needs_context(exposed=False)
            options.append("context=context")
        return f"filtered({', '.join([*written, *options])})"

    def _function(self, name: str) -> Callable[..., object]:
        function = SANDBOX.filters[name]
        if getattr(function, "with_environment", False):
            return partial(function, environment=SANDBOX)
        return function


def _not_too_deep(code: str) -> str:
    if len(code) < 2 * _DEEPEST:
        return code
    depth = 0
    for character in code:
        depth += (character in "([{") - (character in ")]}")
        if depth > _DEEPEST:
            raise Unsupported
    return code

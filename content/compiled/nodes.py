"""The nodes of one part as the source of one Python function; see the package."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, cast

from liquid.ast import BlockNode, Node
from liquid.builtin.content import ContentNode
from liquid.builtin.expressions import LoopExpression, StringLiteral
from liquid.builtin.tags.assign_tag import AssignNode
from liquid.builtin.tags.capture_tag import CaptureNode
from liquid.builtin.tags.case_tag import CaseNode, MultiExpressionBlockNode
from liquid.builtin.tags.comment_tag import CommentNode
from liquid.builtin.tags.for_tag import BreakNode, ContinueNode
from liquid.builtin.tags.if_tag import IfNode
from liquid.builtin.tags.unless_tag import UnlessNode
from liquid.expression import Expression

from content.compiled.expressions import Expressions, Loop, Unsupported
from content.compiled.runtime import HELPERS, LONGEST, unix
from content.sandbox import Context, ForNode, OutputNode, children_of
from content.values import text_of

Code = Callable[[Context, Mapping[str, object]], str]
"""Context and the frame's own names in, text out. Raises whatever stops it."""

# Beyond these the time of Python's compiler, or one of its limits, would count.
_MOST_NODES = 2_000
_DEEPEST_LOOP = 8

_BEGINNING: Final = (
    "L = context.locals",
    "G = context.globals",
    "T = context.tag_namespace['stopindex']",
    "o1 = []",
    "w1 = o1.append",
    "n1 = 0",
)
_CHECK: Final = f" > {LONGEST}: give_up()"

_Lines = list[str]


def compile_nodes(nodes: Sequence[Node], frame_names: Collection[str] = ()) -> Code | None:
    """A function that prints the nodes; None when there are too many of them to be worth it.

    `frame_names`: names that stand before all others but those of loops.
    """
    if _count(nodes) > _MOST_NODES:
        return None
    writer = _Writer(frame_names)
    body = [*_BEGINNING, *writer.block(nodes, 1), "return ''.join(o1)"]
    source = "\n".join(["def render(context, frame):", *_indented(body)])
    namespace: dict[str, object] = {"__builtins__": {}, **HELPERS, **writer.constants}
    exec(compile(source, "<template>", "exec"), namespace)  # noqa: S102 - see the package
    return cast(Code, namespace["render"])


def _count(nodes: Iterable[Node]) -> int:
    return sum(1 + _count(children_of(node)) for node in nodes)


class _Writer(Expressions):
    """Writes statements. What a `{% capture %}` holds goes into a sink of its own: `w2` writes
    there, `n2` counts the characters of it and of what it stands in."""

    def __init__(self, frame_names: Collection[str]) -> None:
        super().__init__(frame_names)
        self._numbers = 1

    def block(self, nodes: Iterable[Node], sink: int) -> _Lines:
        """Statements that print the nodes."""
        lines: _Lines = []
        texts: list[str] = []
        uncounted = 0
        for node in nodes:
            if isinstance(node, ContentNode):
                texts.append(unix(node.text))
                uncounted += len(node.text)
                continue
            if isinstance(node, CommentNode):
                continue
            lines += self._text(texts, sink)
            texts.clear()
            if type(node) is OutputNode and (output := self._output(node, sink, uncounted)):
                lines += output
            else:
                lines += [*_counted(uncounted, sink), *self._node(node, sink)]
            uncounted = 0
        lines += [*self._text(texts, sink), *_counted(uncounted, sink)]
        return lines or ["pass"]

    def _text(self, texts: Iterable[str], sink: int) -> _Lines:
        text = "".join(texts)
        return [f"w{sink}({self.constant(text)})"] if text else []

    def _output(self, node: OutputNode, sink: int, uncounted: int) -> _Lines:
        """Nothing when it has to be left to python-liquid."""
        try:
            value = self.value(node.expression)
        except (Unsupported, RecursionError):
            return []
        escape = self.constant(node.escape)
        if node.escape is text_of:
            text = f"v if (v := {value}).__class__ is str else {escape}(v)"
        else:
            text = f"{escape}({value})"
        more = f" + {uncounted}" if uncounted else ""
        return [
            f"t = {text}",
            f"n{sink} += len(t){more}",
            f"if n{sink}{_CHECK}",
            f"w{sink}(unix(t) if '\\r' in t else t)",
        ]

    def _node(self, node: Node, sink: int) -> _Lines:
        try:
            return self._known(node, sink)
        except (Unsupported, RecursionError):
            return self._left(node, sink)

    def _known(self, node: Node, sink: int) -> _Lines:
        match node:
            case IfNode():
                return self._branches(node, self.condition(node.condition), sink)
            case UnlessNode():
                return self._branches(node, f"not {self.condition(node.condition)}", sink)
            case ForNode():
                return self._for(node, sink)
            case CaseNode():
                return self._case(node, sink)
            case AssignNode():
                name = self.constant(str(node.name))
                return [f"context.assign({name}, {self.value(node.expression)})"]
            case CaptureNode():
                return self._capture(node, sink)
            case BreakNode() | ContinueNode():
                word = "break" if isinstance(node, BreakNode) else "continue"
                return [word if self.loops else "give_up()"]
        raise Unsupported

    def _branches(self, node: IfNode | UnlessNode, condition: str, sink: int) -> _Lines:
        lines = [f"if {condition}:", *_indented(self.block(node.consequence.nodes, sink))]
        for other in node.alternatives:
            lines.append(f"elif {self.condition(other.expression)}:")
            lines += _indented(self.block(other.block.nodes, sink))
        return [*lines, *self._otherwise(node.default, sink)]

    def _otherwise(self, block: BlockNode | None, sink: int) -> _Lines:
        return ["else:", *_indented(self.block(block.nodes, sink))] if block is not None else []

    def _case(self, node: CaseNode, sink: int) -> _Lines:
        # Liquid prints every `when` that matches, as often as it does, and `else` when none
        # before it has.
        number = self._number()
        lines = [f"d{number} = True"]
        for block in node.blocks:
            if isinstance(block, MultiExpressionBlockNode):
                lines += self._when(block, number, sink)
            else:
                lines += [f"if d{number}:", *_indented(self.block(block.nodes, sink))]
        return lines

    def _when(self, node: MultiExpressionBlockNode, number: int, sink: int) -> _Lines:
        left, rights = node.expression.left, node.expression.expressions
        block = self.block(node.block.nodes, sink)
        if len(rights) > 1:
            if _jumps(node):  # a loop around it would catch them
                raise Unsupported
            block = ["for _ in range(c):", *_indented(block)]
        matches = ", ".join(self.equality(f"a{number}", right) for right in rights)
        return [
            f"a{number} = {self.value(left)}",
            f"c = ({matches},).count(True)",
            "if c:",
            *_indented([f"d{number} = False", *block]),
        ]

    def _capture(self, node: CaptureNode, sink: int) -> _Lines:
        own = self._number()
        return [
            f"o{own} = []",
            f"w{own} = o{own}.append",
            f"n{own} = n{sink}",
            *self.block(node.block.nodes, own),
            f"context.assign({self.constant(str(node.name))}, ''.join(o{own}))",
        ]

    def _for(self, node: ForNode, sink: int) -> _Lines:
        expression = node.expression
        variable = str(expression.identifier)
        if variable == "forloop" or len(self.loops) >= _DEEPEST_LOOP:
            raise Unsupported
        number = self._number()
        key = self.constant(f"{variable}-{expression.iterable}")
        lines = self._sequence(expression, number, key)
        loop = Loop(number, variable)
        self.loops.append(loop)
        try:
            block = self.block(node.block.nodes, sink)
        finally:
            self.loops.pop()
        if loop.is_exposed and loop.is_counted:
            raise Unsupported
        spend = f"context.spend(m{number} * {int(node.weight)})"
        walk = self._known_loop(loop, key, block) if loop.is_known else _walk(loop, "s", block)
        return [
            *lines,
            f"if m{number}:",
            *_indented([spend, *walk]),
            *self._otherwise(node.default, sink),
        ]

    def _sequence(self, expression: LoopExpression, number: int, key: str) -> _Lines:
        items = f"items({self.value(expression.iterable)})"
        is_whole = expression.limit is None and expression.offset is None
        if not is_whole:
            limit, offset = self._bound(expression.limit), self._bound(expression.offset)
            items = f"sliced(T, {key}, {items}, {limit}, {offset})"
        lines = [
            f"s{number} = {items}{'[::-1]' if expression.reversed else ''}",
            f"m{number} = len(s{number})",
        ]
        return [*lines, f"T[{key}] = m{number}"] if is_whole else lines

    def _bound(self, expression: Expression | None) -> str:
        if expression is None:
            return "ABSENT"
        if isinstance(expression, StringLiteral) and expression.value == "continue":
            return "CONTINUE"
        return self.value(expression)

    def _known_loop(self, loop: Loop, key: str, block: _Lines) -> _Lines:
        """As python-liquid does it, so that it can run inside."""
        own, variable = self.constant("forloop"), self.constant(loop.variable)
        n = loop.number
        return [
            f"f{n} = ForLoop({key}, iter(s{n}), m{n}, context.parentloop())",
            f"g{n} = {{{own}: f{n}, {variable}: None}}",
            f"context.loops.append(f{n})",
            f"context.scope.push(g{n})",
            *_walk(loop, "f", [f"g{n}[{variable}] = x{n}", *block]),
            "context.scope.pop()",
            "context.loops.pop()",
        ]

    def _left(self, node: Node, sink: int) -> _Lines:
        self.needs_context(exposed=True)
        call = f"j, n{sink} = by_liquid(context, {self.constant(node)}, w{sink}, n{sink})"
        if not self.loops:
            return [call, "if j: give_up()"]
        return [call, "if j == 1: break", "if j == 2: continue"]

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers


def _walk(loop: Loop, over: str, block: _Lines) -> _Lines:
    n = loop.number
    each = f"i{n}, x{n} in enumerate({over}{n})" if loop.is_counted else f"x{n} in {over}{n}"
    return [f"for {each}:", *_indented(block)]


def _counted(uncounted: int, sink: int) -> _Lines:
    return [f"n{sink} += {uncounted}", f"if n{sink}{_CHECK}"] if uncounted else []


def _jumps(node: Node) -> bool:
    return any(
        isinstance(child, BreakNode | ContinueNode) or _jumps(child) for child in children_of(node)
    )


def _indented(lines: Iterable[str]) -> _Lines:
    return [f" {line}" for line in lines]

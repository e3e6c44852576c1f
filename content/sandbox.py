"""Liquid with nothing in it but what a mail needs, and a budget for every run.

What bounds a template, whoever wrote it:

- tags and filters are allow-listed; there is no loader, hence no include, render or file;
- variables resolve in the given JSON-like data only, never on a Python object;
- work is counted: entries of a loop times the length of its body, filters, assignments and big
  values, in units of roughly a microsecond. Past `_BUDGET` units rendering stops. Counting, unlike
  a clock, gives the same answer on every run;
- no intermediate value outgrows `MAX_TEXT` and `MAX_ITEMS`, no output `MAX_OUTPUT`;
- ranges are checked before they are walked: liquid would list `(1..1000000000) reversed` first.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TextIO

from liquid import Environment, RenderContext
from liquid.ast import Node
from liquid.builtin import content as content_tag
from liquid.builtin import illegal
from liquid.builtin import output as output_tag
from liquid.builtin.expressions import FilteredExpression
from liquid.builtin.expressions.primitive import Blank, RangeLiteral
from liquid.builtin.tags import (
    assign_tag,
    capture_tag,
    case_tag,
    comment_tag,
    for_tag,
    if_tag,
    inline_comment_tag,
    unless_tag,
)
from liquid.exceptions import LiquidSyntaxError, ResourceLimitError, UnknownFilterError
from liquid.expression import Expression
from liquid.token import TOKEN_EXPRESSION, Token
from liquid.undefined import UNDEFINED
from liquid.utils import ReadOnlyChainMap

from content.filters import allowed_filters
from content.values import MAX_ITEMS, MAX_TEXT, text_of

if TYPE_CHECKING:
    from liquid.stream import TokenStream
    from liquid.template import BoundTemplate

RESERVED = frozenset(
    {
        *("user", "contact", "event", "payload", "sender", "topic", "reason_line"),
        *("unsubscribe_url", "preferences_url", "view_url", "action_url"),
    }
)
"""Names a template may read but not assign: the frame around it relies on them."""

_BUDGET = 200_000
MAX_OUTPUT = 1_000_000
"""Octets of the longest text that may come out of a template."""
_MAX_SOURCE = 100_000
_MAX_EXPRESSION = 2_000
_MAX_INTEGER_BITS = 512
# A template's text is charged to its loop by the piece; so are big values, which take time to
# compare and to copy.
_SOURCE_PIECE = 32
TEXT_PIECE = 100
"""Characters of a text that cost one unit of the budget."""
_LIST_PIECE = 10

_PAIRS = (
    (re.compile(r"\{\{"), re.compile(r"\}\}"), "{{ is never closed"),
    (re.compile(r"\{%"), re.compile(r"%\}"), "{% is never closed"),
    (
        re.compile(r"\{%-?\s*raw\b"),
        re.compile(r"\{%-?\s*endraw\b"),
        "{% raw %} is never closed",
    ),
    (
        re.compile(r"\{%-?\s*doc\b"),
        re.compile(r"\{%-?\s*enddoc\b"),
        "{% doc %} is never closed",
    ),
)


class OutputNode(output_tag.OutputNode):
    """`{{ … }}`; prints plain text until `escaping.place` has found out where it stands."""

    __slots__ = ("escape",)

    def __init__(self, token: Token, expression: Expression) -> None:
        super().__init__(token, expression)
        self.escape: Callable[[object], str] = text_of

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        return buffer.write(self.escape(self.expression.evaluate(context)))


class _Output(output_tag.Output):
    node_class = OutputNode


class ForNode(for_tag.ForNode):
    """A loop that tells the context how much one round of it costs."""

    __slots__ = ("weight",)

    weight: int

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        assert isinstance(context, Context)
        context.weight = self.weight
        return super().render_to_output(context, buffer)


class _For(for_tag.ForTag):
    node_class = ForNode

    def parse(self, stream: "TokenStream") -> Node:
        start = stream.current.start_index
        node = super().parse(stream)
        assert isinstance(node, ForNode)
        node.weight = 1 + (stream.current.start_index - start) // _SOURCE_PIECE
        return node


class Range(RangeLiteral):
    """`(a..b)` of at most `MAX_ITEMS` numbers."""

    __slots__ = ()

    def evaluate(self, context: RenderContext) -> range:
        numbers = super().evaluate(context)
        if numbers.stop - numbers.start > MAX_ITEMS:
            raise ResourceLimitError("a range is too long", token=self.token)
        return numbers


class BlankValue(Blank):
    """`blank`, which nothing and null equal too, as they do in Shopify's Liquid."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other is None or super().__eq__(other)


class Context(RenderContext):
    """One run of a template over plain data, and what it has spent of its budget."""

    __slots__ = ("spent", "weight")

    def __init__(self, template: "BoundTemplate", *, globals: Mapping[str, object]) -> None:
        super().__init__(template, globals=globals)
        # Without liquid's own `now` and `today`: they are Python objects and the host's clock.
        self.scope = ReadOnlyChainMap(self.locals, self.globals)
        self.spent = 0
        self.weight = 1

    def spend(self, units: int) -> None:
        self.spent += units
        if self.spent > _BUDGET:
            raise ResourceLimitError("the template does too much work", token=None)

    def raise_for_loop_limit(self, length: int = 1) -> None:
        self.spend(length * self.weight)

    def assign(self, key: str, val: Any) -> None:
        self.spend(1 + pieces_of(val))
        self.locals[key] = bounded(val)

    def get(
        self, path: list[object], *, token: Token | None, default: object = UNDEFINED
    ) -> object:
        # What is missing is null, which is also the cheaper answer.
        value = super().get(path, token=token, default=None)
        if pieces := pieces_of(value):
            self.spend(pieces)
        return value

    def filter(self, name: str, token: Token | None) -> Callable[..., object]:
        function = super().filter(name, token)

        def measured(value: object, *arguments: object, **options: object) -> object:
            result = bounded(function(value, *arguments, **options))
            self.spend(1 + pieces_of(value) + pieces_of(result))
            return result

        return measured


def pieces_of(value: object) -> int:
    """What it costs to look at the value, in units of the budget."""
    if isinstance(value, str):
        return len(value) // TEXT_PIECE
    return len(value) // _LIST_PIECE if isinstance(value, (list, dict)) else 0


def bounded(value: Any) -> Any:
    """The value, unless it outgrows what a template may build: `ResourceLimitError`."""
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise ResourceLimitError("a text is too long", token=None)
    if isinstance(value, list | tuple) and len(value) > MAX_ITEMS:
        raise ResourceLimitError("a list is too long", token=None)
    if isinstance(value, int) and value.bit_length() > _MAX_INTEGER_BITS:
        raise ResourceLimitError("a number is too large", token=None)
    return value


class Sandbox(Environment):
    """The only environment templates are parsed in."""

    block_nesting_limit = 20
    output_stream_limit = MAX_OUTPUT
    # A block of white space is printed as it stands: `escaping` reasons about what is written.
    suppress_blank_control_flow_blocks = False

    def setup_tags_and_filters(self, *, extra: bool = False) -> None:
        for tag in (
            content_tag.Literal,
            illegal.Illegal,
            _Output,
            _For,
            for_tag.BreakTag,
            for_tag.ContinueTag,
            assign_tag.AssignTag,
            capture_tag.CaptureTag,
            case_tag.CaseTag,
            comment_tag.CommentTag,
            if_tag.IfTag,
            inline_comment_tag.InlineCommentTag,
            unless_tag.UnlessTag,
        ):
            self.add_tag(tag)
        self.filters = allowed_filters()

    def tokenizer(self) -> Callable[[str], Iterator[Token]]:
        tokenize = super().tokenizer()

        def checked(source: str) -> Iterator[Token]:
            for token in tokenize(source):
                # The expression lexer looks ahead from every parenthesis and quote.
                if token.kind == TOKEN_EXPRESSION and len(token.value) > _MAX_EXPRESSION:
                    raise LiquidSyntaxError("an expression is too long", token=token)
                yield token

        return checked


SANDBOX: Final = Sandbox()
# Asked for by `Node.children`, used by tags that load other templates only.
_NO_DATA = Context(SANDBOX.from_string(""), globals={})


def parse(source: str) -> "BoundTemplate":
    """The template, checked as far as that is possible without data; raises `LiquidError`."""
    if len(source) > _MAX_SOURCE:
        raise LiquidSyntaxError(f"longer than {_MAX_SOURCE} characters", token=None)
    _check_characters(source)
    _check_pairs(source)
    template = SANDBOX.from_string(source)
    _tame_nodes(template.nodes)
    return template


def children_of(node: Node) -> Iterable[Node]:
    """The nodes directly below; a block counts as one."""
    return node.children(_NO_DATA)


def _check_characters(source: str) -> None:
    # What cannot be encoded cannot be sent. No database keeps it; an unsaved draft may have it.
    try:
        source.encode()
    except UnicodeEncodeError as error:
        line = source.count("\n", 0, error.start) + 1
        raise LiquidSyntaxError(
            f"line {line}: half of a surrogate pair is no character", token=None
        ) from None


def _check_pairs(source: str) -> None:
    # The lexer's patterns look for the closing mark from every opening one, to the end of the
    # text. Once the last opening mark has a closing one, all of them have.
    for opening, closing, message in _PAIRS:
        opened = list(opening.finditer(source))
        if opened and closing.search(source, opened[-1].end()) is None:
            line = source.count("\n", 0, opened[-1].start()) + 1
            raise LiquidSyntaxError(f"line {line}: {message}", token=None)


def _tame_nodes(nodes: Iterable[Node]) -> None:
    for node in nodes:
        for name in node.template_scope():
            if name in RESERVED:
                raise LiquidSyntaxError(f"the name {name} is reserved", token=node.token)
        for expression in node.expressions():
            _tame(expression)
        _tame_nodes(children_of(node))


def _tame(expression: Expression) -> None:
    if isinstance(expression, RangeLiteral):
        # The parser builds these classes whatever the environment says; ours add no state.
        expression.__class__ = Range
    if isinstance(expression, Blank):
        expression.__class__ = BlankValue
    if isinstance(expression, FilteredExpression):
        for used in expression.filters or ():
            if used.name not in SANDBOX.filters:
                raise UnknownFilterError(f"unknown filter '{used.name}'", token=used.token)
    for child in expression.children():
        _tame(child)

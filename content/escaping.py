"""Every `{{ output }}` of an HTML template escaped for the place where it stands.

`place` walks the parsed template once, when it is compiled, and gives each output the function
that fits: text, attribute, link, inside of a link, style. An output where no escaping helps (a tag
or attribute name, an unquoted value, `<style>`, `onclick`, the middle of a scheme) is an error of
the template, with its line. All branches of an `{% if %}` have to end in the same place and a loop
has to end where it began, so what was found out holds on every way through the template.

Nothing a value contains can therefore open a tag, add an attribute, or choose a scheme other than
http, https, mailto, tel or sms; and it costs no more at run time than plain escaping.
"""

import html
import re
from collections.abc import Callable, Iterable

from liquid.ast import BlockNode, ConditionalBlockNode, Node
from liquid.builtin.content import ContentNode
from liquid.builtin.tags.assign_tag import AssignNode
from liquid.builtin.tags.capture_tag import CaptureNode
from liquid.builtin.tags.case_tag import CaseNode, MultiExpressionBlockNode
from liquid.builtin.tags.comment_tag import CommentNode
from liquid.builtin.tags.for_tag import BreakNode, ContinueNode, ForNode
from liquid.builtin.tags.if_tag import IfNode
from liquid.builtin.tags.unless_tag import UnlessNode
from liquid.exceptions import LiquidSyntaxError

from content.html_state import URL_ATTRIBUTES, Forbidden, Mode, State, Url, advance
from content.sandbox import OutputNode, children_of
from content.values import Lines, text_of

Escape = Callable[[object], str]

_PLAIN_NAMES = (
    "abbr align alt bgcolor border cellpadding cellspacing class color colspan datetime dir face "
    "height id label lang name role rowspan scope size summary title valign value width"
)
_PLAIN_ATTRIBUTES = frozenset(_PLAIN_NAMES.split())
_FRAME_ELEMENT = re.compile(r"</?(body|head|html|link|meta|title)(?=[\s/>])", re.IGNORECASE)

_ADDRESS = re.compile(r"(https?://|mailto:|tel:|sms:)[^\x00-\x20]", re.IGNORECASE)
_HOST = re.compile(r"[A-Za-z0-9.-]{0,253}")
_STYLE_VALUE = re.compile(r"[A-Za-z0-9#.% -]{0,60}")
_ENTITY = re.compile(r"&(#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def in_text(value: object) -> str:
    """Between tags."""
    if type(value) is str:
        return html.escape(value)
    escaped = html.escape(text_of(value))
    return escaped.replace("\n", "<br>\n") if isinstance(value, Lines) else escaped


def in_attribute(value: object) -> str:
    """Between the quotes of an attribute, or inside `<title>` and comments."""
    return html.escape(text_of(value))


def in_link(value: object) -> str:
    """The whole address, or its beginning: absolute and harmless, or `#`."""
    address = text_of(value).strip()
    return html.escape(address) if _ADDRESS.match(address) else "#"


def in_host(value: object) -> str:
    """A part of a host name."""
    host = text_of(value).strip()
    return host if _HOST.fullmatch(host) else ""


def after_host(value: object) -> str:
    """What follows a host name in an address: never more of the host."""
    rest = text_of(value).strip()
    return html.escape(rest if rest[:1] in ("", "/", "?", "#") else f"/{rest}")


def in_style(value: object) -> str:
    """A colour, a number, a length: nothing that could start another declaration."""
    text = text_of(value)
    return text if _STYLE_VALUE.fullmatch(text) else ""


def place(nodes: Iterable[Node], *, fragment: bool) -> None:
    """Give every output among the nodes its escaping; they begin and end between tags.

    A `fragment` stands inside the frame and may not bring parts of one. Raises
    `LiquidSyntaxError`.
    """
    placer = _Placer(fragment)
    node: Node | None = None
    state = State()
    for node in nodes:
        state = placer.visit(node, state)
    if state != State():
        token = node.token if node is not None else None
        raise LiquidSyntaxError(_unfinished(state), token=token)


class _Placer:
    def __init__(self, fragment: bool) -> None:
        self.fragment = fragment
        self.loops: list[State] = []

    def visit(self, node: Node, state: State) -> State:
        """The state behind the node."""
        try:
            return self._visit(node, state)
        except Forbidden as error:
            raise LiquidSyntaxError(str(error), token=node.token) from None

    def _visit(self, node: Node, state: State) -> State:
        match node:
            case ContentNode():
                return self._literal(node, state)
            case OutputNode():
                return _output(node, state)
            case BlockNode():
                return self._all(node.nodes, state)
            case ConditionalBlockNode() | MultiExpressionBlockNode():
                return self.visit(node.block, state)
            case IfNode() | UnlessNode():
                return self._branches(node, state)
            case CaseNode():
                # Liquid prints every `when` that matches, one after the other.
                return self._unchanged(node, node.blocks, state)
            case ForNode():
                return self._loop(node, state)
            case BreakNode() | ContinueNode():
                return self._unchanged(node, [], state, self.loops[-1] if self.loops else state)
            case CaptureNode():
                _check_captured(node)
                return state
            case AssignNode() | CommentNode():
                return state
        raise LiquidSyntaxError("a tag that cannot stand in HTML", token=node.token)

    def _all(self, nodes: Iterable[Node], state: State) -> State:
        for node in nodes:
            state = self.visit(node, state)
        return state

    def _literal(self, node: ContentNode, state: State) -> State:
        after = advance(state, node.text)
        if self.fragment and (found := _frame_element(node.text)):
            raise Forbidden(f"<{found}> belongs to the frame, which is put around this")
        return after

    def _branches(self, node: IfNode | UnlessNode, state: State) -> State:
        branches = [node.consequence, *node.alternatives]
        ends = {self.visit(branch, state) for branch in branches}
        ends.add(self.visit(node.default, state) if node.default else state)
        if len(ends) > 1:
            raise LiquidSyntaxError(
                "one way through this condition leaves a tag or quote open that another closes",
                token=node.token,
            )
        return ends.pop()

    def _loop(self, node: ForNode, state: State) -> State:
        self.loops.append(state)
        blocks = [node.block, node.default] if node.default else [node.block]
        self._unchanged(node, blocks, state)
        self.loops.pop()
        return state

    def _unchanged(
        self, node: Node, blocks: Iterable[Node], state: State, wanted: State | None = None
    ) -> State:
        wanted = state if wanted is None else wanted
        if any(self.visit(block, state) != wanted for block in blocks) or state != wanted:
            raise LiquidSyntaxError("this leaves a tag or quote open", token=node.token)
        return state


def _output(node: OutputNode, state: State) -> State:
    escape = _escape_at(state)
    if isinstance(escape, str):
        raise LiquidSyntaxError(escape, token=node.token)
    node.escape = escape
    if escape is in_link:
        return state._replace(url=Url.REST)
    # Behind a part of a host name comes the host name's rest or a slash, never a free value.
    return state._replace(literal="x") if escape is in_host else state


def _escape_at(state: State) -> Escape | str:
    """What fits the place, or why nothing does."""
    if state.pending:
        return "a variable cannot stand in the middle of a tag or comment mark"
    if state.mode is Mode.TEXT:
        return in_text
    if state.mode is Mode.COMMENT or (state.mode is Mode.RAW and state.tag != "style"):
        return in_attribute
    if state.mode is Mode.VALUE:
        return _escape_in_value(state)
    if state.mode in (Mode.BEFORE_VALUE, Mode.UNQUOTED):
        return "put quotes around the attribute's value"
    if state.mode is Mode.RAW:
        return "a variable cannot stand inside <style>"
    return "a variable cannot stand inside a tag, only in an attribute's quoted value"


def _escape_in_value(state: State) -> Escape | str:
    name = state.name
    if name in URL_ATTRIBUTES:
        return _escape_in_url(state)
    if name == "style":
        return in_style
    if name in _PLAIN_ATTRIBUTES or name.startswith(("data-", "aria-")):
        return in_attribute
    return f"a variable cannot stand in the attribute {name}"


def _escape_in_url(state: State) -> Escape | str:
    match state.url:
        case Url.START:
            return in_link
        case Url.REST:
            return in_attribute
        case Url.HOST:
            return in_host if state.literal in ("/", ".") else after_host
    return "a link has to begin with https:// (or mailto:, tel:) or with the variable itself"


def _check_captured(node: Node) -> None:
    """`{% capture %}` holds text, not HTML: its outputs are escaped where the name is printed."""
    for child in children_of(node):
        if isinstance(child, ContentNode):
            if "<" in child.text:
                raise LiquidSyntaxError("capture text only, no HTML", token=child.token)
            # The author writes HTML; what is captured is text.
            child.text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), child.text)
        _check_captured(child)


def _frame_element(text: str) -> str | None:
    found = _FRAME_ELEMENT.search(text)
    return found[1].lower() if found else None


def _unfinished(state: State) -> str:
    if state.mode is Mode.RAW:
        return f"<{state.tag}> is never closed"
    if state.mode is Mode.COMMENT or state.pending.startswith("<!"):
        return "a comment is never closed"
    return "a tag is never closed"

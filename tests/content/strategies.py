"""Templates and data nobody would write, for comparing the two ways of rendering."""

from collections.abc import Sequence
from random import Random
from typing import Any

from hypothesis import strategies as st

_ROOTS = "a b c items order user event x y i forloop nothing subject k-1".split()
_STEPS = (
    ".name .price .tags .a .b .size .first .last [0] [-1] [7] ['a'] ['first'] [a] [order.a] [i] "
    ".parentloop .index .length .deep.deeper"
).split()
_OF_LOOPS = (
    "forloop.index forloop.index0 forloop.rindex forloop.rindex0 forloop.first forloop.last "
    "forloop.length forloop.name forloop.size forloop.parentloop.index forloop.nothing forloop "
    "forloop.parentloop forloop.parentloop.last forloop.parentloop.parentloop.first"
).split()
_LITERALS = (
    *("''", "' '", "'a'", "'<&\"'", '"it\'s"', "'zoë'", "'10'", "', '", "'%Y-%m-%d'", "'now'"),
    *("'name'", "0", "1", "2", "-1", "3", "7.5", "-0.0", "9999999999999999999999", "true", "false"),
    *("nil", "null", "empty", "blank", "(1..3)", "(a..b)", "(2..items.size)", "(1..n)"),
    "[b]",
)
_OPERATORS = "== != <> < > <= >= contains".split()
_WITHOUT = (
    "abs capitalize ceil compact downcase escape first floor last lstrip newline_to_br reverse "
    "round rstrip size sort sort_natural squish strip strip_html strip_newlines sum upcase "
    "url_encode"
).split()
_WITH_NUMBER = (
    "at_least at_most divided_by minus modulo plus times round slice truncate truncatewords"
).split()
_WITH_NUMBERS = "slice truncate truncatewords".split()
_WITH_TEXT = (
    "append concat date default join map prepend remove remove_first remove_last sort "
    "sort_natural split sum where find reject"
).split()
_WITH_TEXTS = "replace replace_first replace_last where find reject".split()
_NUMBERS = "0 1 2 -1 3 7.5 b items.size forloop.index '2'".split()
_WORDS = (
    *("'a'", "' '", "', '", "'<'", "'name'", "'price'", "'%Y'", "b", "item.name", "order.name"),
    "user.name",
)
_TEXTS = (
    "x",
    " ",
    "\n",
    "\r\n",
    "a\rb",
    "  \n\n",
    "zoë 🧣 ",
    "&amp;",
    "{ } %",
    "{% raw %}{{ a }}{% endraw %}",
    "{% comment %}{{ a }}{% endcomment %}",
    "{% # a comment %}",
    "line\n",
)
_PLACES = (
    "<p>{}</p>",
    '<b title="{}">x</b>',
    "<b title='a {} b'>x</b>",
    '<a href="{}">x</a>',
    '<a href="{}/b">x</a>',
    '<a href="https://x.example/?q={}">x</a>',
    '<a href="https://{}.example/">x</a>',
    '<a href="https://x.example{}">x</a>',
    '<td style="width:{}">x</td>',
    "<!-- x{}x -->",
    "<title>{}</title>",
)
_VARIABLES = "x y i item a forloop event order".split()
_ASSIGNED = "x y a items i k-1".split()

HOSTILE = (
    "",
    " ",
    "Ada",
    "<script>alert('1')</script> & \"more\"",
    "javascript:alert(1)",
    "https://example.com/?a=1&b=2",
    "a\r\nBcc: all@example.com\r\n\r\n",
    "\r",
    "a\rb\nc\r\n",
    "\x00\x07\x85\u2028\ufeff",
    "\ud800 half",
    "zoë 🧣 \u202eevil",
    "12",
    " 12 ",
    "-3.5",
    "1e400",
    "nan",
    "true",
    "2026-03-01T12:30:00+00:00",
    "{{ a }}{% if %}",
    "x" * 99,
    "x" * 100,
    "y" * 1_234,
    "name",
    "#ff0000",
)

_scalars = (
    st.sampled_from(HOSTILE)
    | st.none()
    | st.booleans()
    | st.integers(-3, 12)
    | st.sampled_from([10**11, 10**30, -(2**600), 0.1, -0.0, 1e300, float("nan"), float("inf")])
    | st.text(max_size=6)
)
_lists = st.lists(_scalars, max_size=4)
_things = st.fixed_dictionaries(
    {"name": _scalars, "price": _scalars},
    optional={"tags": _lists, "a": _scalars, "size": _scalars, "first": _scalars},
)
_values = _scalars | _lists | _things | st.lists(_lists, max_size=3) | st.just(list(range(12)))


def data() -> st.SearchStrategy[dict[str, Any]]:
    """What an event could bring, of the kinds JSON has and a few worse."""
    return st.fixed_dictionaries(
        {"items": st.lists(_things, max_size=4) | _values, "a": _values, "b": _scalars},
        optional={
            "c": _values,
            "order": _things,
            "user": _things,
            "event": st.fixed_dictionaries({"occurred_at": _scalars}),
            "forloop": _scalars,
            "i": _scalars,
            "k-1": _scalars,
            "subject": _scalars,
            "x": _values,
        },
    )


def text_templates() -> st.SearchStrategy[str]:
    """Templates of a subject or a text.

    Each grows from one number: drawn piece by piece they would take ten times as long.
    """
    return _seeds.map(lambda seed: _block(Random(seed), 3, html=False))


def html_templates() -> st.SearchStrategy[str]:
    """Templates with outputs in the places that HTML has."""
    return _seeds.map(lambda seed: _block(Random(seed), 3, html=True))


_seeds = st.integers(0, 2**64)


def _pick(draw: Random, options: Sequence[str]) -> str:
    return draw.choice(options)


def _block(draw: Random, depth: int, *, html: bool) -> str:
    return "".join(_node(draw, depth, html) for _ in range(draw.randint(1, 3)))


def _node(draw: Random, depth: int, html: bool) -> str:
    kind = draw.randint(0, 21 if depth else 9)
    if kind < 2:
        return _pick(draw, _TEXTS)
    if kind < 7:
        written = _output(draw)
        return _pick(draw, _PLACES).replace("{}", written) if html else written
    if kind == 7:
        return _tag(draw, f"assign {_pick(draw, _ASSIGNED)} = {_filtered(draw)}")
    if kind == 8:
        return _tag(draw, f"capture {_pick(draw, _ASSIGNED)}") + (
            _output(draw) + _block(draw, depth - 1 if depth else 0, html=False) + "{% endcapture %}"
            if depth and not html
            else f"x{_output(draw)}{{% endcapture %}}"
        )
    if kind == 9:
        jump = _tag(draw, _pick(draw, ("break", "continue")))
        # Outside of a loop it is an error, at the top level more often than not.
        return jump if depth == 0 or draw.random() < 0.02 else _pick(draw, _TEXTS)
    if kind < 14:
        return _condition(draw, depth - 1, html)
    if kind < 16:
        return _case(draw, depth - 1, html)
    return _loop(draw, depth - 1, html)


def _condition(draw: Random, depth: int, html: bool) -> str:
    word = _pick(draw, ("if", "if", "unless"))
    pieces = [_tag(draw, f"{word} {_test(draw)}"), _block(draw, depth, html=html)]
    for _ in range(draw.randint(0, 2)):
        pieces += [_tag(draw, f"elsif {_test(draw)}"), _block(draw, depth, html=html)]
    if draw.random() < 0.5:
        pieces += [_tag(draw, "else"), _block(draw, depth, html=html)]
    return "".join([*pieces, _tag(draw, f"end{word}")])


def _case(draw: Random, depth: int, html: bool) -> str:
    pieces = [_tag(draw, f"case {_primitive(draw)}")]
    for _ in range(draw.randint(0, 3)):
        if draw.randint(0, 3) == 0:
            pieces.append(_tag(draw, "else"))
        else:
            options = " or ".join(_primitive(draw) for _ in range(draw.randint(1, 3)))
            pieces.append(_tag(draw, f"when {options}"))
        pieces.append(_block(draw, depth, html=html))
    return "".join([*pieces, _tag(draw, "endcase")])


def _loop(draw: Random, depth: int, html: bool) -> str:
    over = _pick(draw, ("items", "items", "a", "(1..3)", "order", "order.tags", _primitive(draw)))
    options = ""
    for option in draw.choices(range(6), k=draw.choice((0, 0, 1, 2))):
        options += (
            " reversed",
            " limit:2",
            " offset:1",
            " offset:continue",
            f" limit:{_pick(draw, _NUMBERS)}",
            f" offset:{_pick(draw, _NUMBERS[:5])}",
        )[option]
    variable = _pick(draw, _VARIABLES)
    inside = _block(draw, depth, html=html)
    written = f"{{{{ {draw.choice((variable, _pick(draw, _OF_LOOPS), _primitive(draw)))} }}}}"
    other = _tag(draw, "else") + _block(draw, depth, html=html) if draw.random() < 0.5 else ""
    start = _tag(draw, f"for {variable} in {over}{options}")
    return f"{start}{inside}{written}{other}{_tag(draw, 'endfor')}"


def _tag(draw: Random, inside: str) -> str:
    left, right = draw.choice((("", ""), ("", ""), ("", ""), ("-", ""), ("", "-"), ("-", "-")))
    return f"{{%{left} {inside} {right}%}}"


def _output(draw: Random) -> str:
    left, right = draw.choice((("", ""), ("", ""), ("-", "-")))
    return f"{{{{{left} {_filtered(draw)} {right}}}}}"


def _filtered(draw: Random) -> str:
    return "".join([_primitive(draw), *(_filter(draw) for _ in range(draw.randint(0, 2)))])


def _filter(draw: Random) -> str:
    kind = draw.randint(0, 19)
    if kind < 7:
        return f" | {_pick(draw, _WITHOUT)}"
    if kind < 10:
        return f" | {_pick(draw, _WITH_NUMBER)}: {_pick(draw, _NUMBERS)}"
    if kind < 14:
        return f" | {_pick(draw, _WITH_TEXT)}: {_pick(draw, _WORDS)}"
    if kind == 14:
        return f" | {_pick(draw, _WITH_TEXTS)}: {_pick(draw, _WORDS)}, {_pick(draw, _WORDS)}"
    if kind == 15:
        return f" | {_pick(draw, _WITH_NUMBERS)}: {_pick(draw, _NUMBERS)}, {_argument(draw)}"
    if kind == 16:
        return f" | {_pick(draw, _WITH_NUMBER + _WITH_TEXT)}: {_argument(draw)}"
    if kind < 19:
        return f" | default: {_argument(draw)}"
    return f" | default: allow_false: {_argument(draw)}, {_argument(draw)}"


def _argument(draw: Random) -> str:
    # No filter takes these two.
    return _primitive(draw).replace("empty", "a").replace("blank", "b")


def _test(draw: Random) -> str:
    tests = [_comparison(draw) for _ in range(draw.randint(1, 3))]
    return "".join(
        test if not number else f" {_pick(draw, ('and', 'or'))} {test}"
        for number, test in enumerate(tests)
    )


def _comparison(draw: Random) -> str:
    if draw.randint(0, 2) == 0:
        return _primitive(draw)
    if draw.randint(0, 1) == 0:
        return f"{_primitive(draw)} {_pick(draw, ('==', '!='))} {_pick(draw, _LITERALS)}"
    return f"{_primitive(draw)} {_pick(draw, _OPERATORS)} {_primitive(draw)}"


def _primitive(draw: Random) -> str:
    kind = draw.randint(0, 8)
    if kind < 3:
        return _pick(draw, _LITERALS)
    if kind == 3:
        return _pick(draw, _OF_LOOPS)
    steps = "".join(draw.choices(_STEPS, k=draw.choice((0, 0, 1, 1, 1, 2))))
    return f"{_pick(draw, _ROOTS)}{steps}"

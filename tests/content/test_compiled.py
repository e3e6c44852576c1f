"""Compiled templates print what python-liquid prints, spend what it spends, stop where it stops."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from common.clock import now
from content import running, sandbox
from content.compiled.runtime import HELPERS
from content.escaping import place
from content.filters import allowed_filters
from content.lint import SAMPLE_CONTEXT
from content.rendering import RenderedEmail, RenderError, render
from content.running import Part, part_of, run_code, run_liquid
from content.sandbox import MAX_OUTPUT
from content.values import plain
from tests.content.helpers import version
from tests.content.strategies import data, html_templates, text_templates

_FRAME = {"subject": "A <b>subject</b>", "preheader": ""}
_BUDGETS = (200_000, 200_000, 200_000, 0, 1, 7, 20, 60)
_keys = itertools.count(-1_000_000, -1)


def _same_examples(count: int) -> settings:
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def _parts(*sources: str, html: bool = False) -> list[Part]:
    templates = [sandbox.parse(source) for source in sources]
    if html:
        for template in templates:
            place(template.nodes, fragment=False)
    first, *others = templates
    return [part_of(first, _FRAME), *map(part_of, others)]


def _outcome(run: Any, parts: list[Part], values: dict[str, Any]) -> tuple[Any, ...]:
    """Texts and everything a run leaves behind, or nothing when it was stopped."""
    context = sandbox.Context(parts[0].template, globals=values)
    try:
        texts = run(parts, context, _FRAME)
    except Exception:  # noqa: BLE001 - whatever Python raises
        return ()
    left = {name: repr(value) for name, value in context.locals.items()}
    return texts, context.spent, left, context.tag_namespace["stopindex"]


def _assert_equal(parts: list[Part], values: dict[str, Any]) -> None:
    assert all(part.code for part in parts)
    expected, compiled = _outcome(run_liquid, parts, values), _outcome(run_code, parts, values)
    # To walk through a loop's own object, kept in a variable, is left to python-liquid.
    may_give_up = bool(expected) and "ForLoop(" in str(expected[2])
    assert compiled == expected or (may_give_up and not compiled)


# --- Anything -----------------------------------------------------------------------------

_budgeted_data = st.lists(st.tuples(data(), st.sampled_from(_BUDGETS)), min_size=3, max_size=3)


@_same_examples(200)
@given(st.lists(text_templates(), min_size=1, max_size=2), _budgeted_data)
def test_text_and_cost_are_those_of_python_liquid(
    sources: list[str], runs: list[tuple[dict[str, Any], int]]
) -> None:
    parts = _parts(*sources)
    for values, budget in runs:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sandbox, "_BUDGET", budget)
            _assert_equal(parts, plain(values))


@_same_examples(200)
@given(st.lists(html_templates(), min_size=1, max_size=2), _budgeted_data)
def test_html_and_cost_are_those_of_python_liquid(
    sources: list[str], runs: list[tuple[dict[str, Any], int]]
) -> None:
    parts = _parts(*sources, html=True)
    for values, budget in runs:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sandbox, "_BUDGET", budget)
            _assert_equal(parts, plain(values))


@_same_examples(60)
@given(
    text_templates(),
    text_templates(),
    html_templates(),
    st.just("") | text_templates(),
    st.lists(data(), min_size=3, max_size=3),
)
def test_mail_and_its_errors_are_those_of_python_liquid(
    subject: str, preheader: str, html: str, text: str, runs: list[dict[str, Any]]
) -> None:
    published = version(
        f"<p>{html}</p>",
        subject=f"{{{{ a }}}}{subject}",
        preheader=preheader,
        text=text,
        pk=next(_keys),
        published_at=now(),
    )
    for values in runs:
        mail = _mail_or_error(published, values)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(running, "run_code", run_liquid)
            assert mail == _mail_or_error(published, values)


def _mail_or_error(published: Any, values: dict[str, Any]) -> RenderedEmail | tuple[str, str]:
    try:
        return render(published, values)
    except RenderError as error:
        return error.field, error.message


# --- Everything of a kind -----------------------------------------------------------------

_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 2, -1, 1.0, 0.5, float("nan"), 10**30, "", " ", "a", "1", "true"),
    *([], [1], ["a", True], {}, {"a": 1}, [{"name": "b"}, {"name": "a"}]),
)


@pytest.mark.parametrize("operator", "== != <> < > <= >= contains".split())
def test_values_compare_as_in_python_liquid(operator: str) -> None:
    literals = "true false nil empty blank 0 1 1.0 'a' '' (1..2)".split()
    sources = [f"a {operator} b", *(f"a {operator} {literal}" for literal in literals)]
    sources += [f"{literal} {operator} a" for literal in literals]
    parts = [_parts(f"{{% if {source} %}}yes{{% else %}}no{{% endif %}}") for source in sources]
    for a, b in itertools.product(_VALUES, repeat=2):
        _assert_equal(parts[0], {"a": a, "b": b})
    for part, a in itertools.product(parts, _VALUES):
        _assert_equal(part, {"a": a})


@pytest.mark.parametrize("name", allowed_filters())
def test_filter_gives_and_costs_what_it_does_in_python_liquid(name: str) -> None:
    parts = [_parts(f"{{{{ a | {name}{rest} }}}}") for rest in ("", ": b", ": b, 'a'", ": 2")]
    values = [*_VALUES, "2026-03-01", "A\r\nb <c> &amp; d  e", "x" * 250, list(range(25))]
    for part, a, b in itertools.product(parts, values, (None, 1, "a", "name", [3])):
        _assert_equal(part, {"a": a, "b": b})


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in a %}{{ i }}FACT {% endfor %}",
        "{% for i in a reversed %}{{ i }}FACT {% endfor %}",
        "{% for i in a limit: b %}{{ i }}FACT {% else %}none{% endfor %}",
        "{% for i in a offset: b %}{{ i }}FACT {% else %}none{% endfor %}",
        "{% for i in a limit: 2 %}{{ i }}{% endfor %}|{% for i in a offset: continue %}FACT"
        "{{ i }}{% endfor %}|{% for i in a limit: b offset: continue reversed %}{{ i }}"
        "{% endfor %}",
        "{% for i in a %}{% for i in a %}FACT{{ i }} {% endfor %}FACT{{ i }};{% endfor %}FACT"
        "{{ i }}",
        "{% for i in a %}{% if i == b %}{% break %}{% endif %}{{ i }}FACT {% endfor %}",
        "{% for i in a %}{% if i == b %}{% continue %}{% endif %}{{ i }}FACT {% endfor %}",
        "{% for i in a %}{% capture x %}{{ i }}{% if i == b %}{% break %}{% endif %}"
        "{% endcapture %}{{ x }}FACT {% endfor %}{{ x }}",
        "{% for event in a %}{{ 'now' | date: '%Y' }}FACT{{ event }} {% endfor %}",
        "{% for i in a %}{% for j in i %}{{ j }}FACT {% else %}FACT{% break %}{% endfor %}"
        "{% endfor %}",
    ],
)
def test_loop_walks_as_in_python_liquid(source: str) -> None:
    facts = "index index0 rindex rindex0 first last length name size parentloop.index nothing"
    lists = (*_VALUES, [1, 2, 3], [3, 2, 1, 0], ["a", "b"], "abc", [[1, 2], [], [3]])
    for fact in ["", *(f"{{{{ forloop.{fact} }}}}" for fact in facts.split())]:
        parts = _parts(source.replace("FACT", fact))
        for a, b in itertools.product(lists, (None, 0, 1, 2, -1, "1", 99)):
            _assert_equal(parts, {"a": a, "b": b, "event": {"occurred_at": "2024-01-01"}})


@pytest.mark.parametrize(
    "source",
    [
        "{% case a %}{% when 1 %}1{% when 'a' or b %}a{% else %}-{% when 1 or 1 %}x{% endcase %}",
        "{% case a %}{% else %}0{% when b %}b{% else %}-{% endcase %}",
        "{% unless a %}1{% elsif b %}2{% else %}3{% endunless %}",
        "{% if a and b or a %}1{% elsif b or a and c %}2{% endif %}",
        "{% assign a = b %}{{ a }}{% capture b %}{{ a }}\r\n{{ c }}{% endcapture %}{{ a }}{{ b }}",
        "{{ a.a }}{{ a.size }}{{ a.first }}{{ a.last }}{{ a[0] }}{{ a[-1].name }}{{ a[b] }}",
        "{{ a.first.name.size }}{{ a['a'] }}{{ a[a] }}{{ a[b].name }}{{ a.size.first }}",
        "{% for i in (a..b) %}{{ i }}{% endfor %}{{ (a..b) }}{{ (b..a) | size }}",
    ],
)
def test_tag_or_path_gives_what_it_does_in_python_liquid(source: str) -> None:
    parts = _parts(source)
    for a, b in itertools.product(_VALUES, repeat=2):
        _assert_equal(parts, {"a": a, "b": b, "c": "\rc"})


# --- Limits -------------------------------------------------------------------------------

_BIG = "x" * 50_000


@pytest.mark.parametrize("character", ["x", "é", "✓", "🧣"])
@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize(
    "source",
    [
        "{% for i in (1..n) %}{{ text }}{% endfor %}",
        "{% capture x %}{% for i in (1..n) %}{{ text }}{% endfor %}{% endcapture %}",
        "{% for i in (1..n) %}{% if forloop.first %}{% capture x %}{{ text }}{% endcapture %}"
        "{% endif %}{{ text }}{% endfor %}",
        "{{ text }}{% for i in (2..n) %}{{ [name] }}{% endfor %}",
    ],
)
def test_output_ends_at_the_same_octet(source: str, more: int, character: str) -> None:
    octets = len(character.encode())
    text = character * (MAX_OUTPUT // 20 // octets)
    rest = "y" * (MAX_OUTPUT - 20 * octets * len(text) + more)
    parts = _parts(f"{source}{{{{ rest }}}}")
    values = {"text": text, "rest": rest, "n": 20, "name": "text"}
    expected = _outcome(run_liquid, parts, values)
    # Long ones are left to python-liquid before the limit; they must not pass it.
    assert _outcome(run_code, parts, values) in ((), expected)


@pytest.mark.parametrize("length", [99, 100, 101, 50_000])
def test_big_values_cost_the_same(length: int) -> None:
    values = {"a": "x" * length, "b": list(range(length)), "c": {"d": "é" * length}}
    _assert_equal(_parts("{{ a }}{{ b.size }}{{ c.d }}{% assign x = a | upcase %}"), values)


# --- What stays python-liquid's -----------------------------------------------------------

_LEFT = {
    "a path that begins with a path": "{% for i in items %}{{ [b] }}{{ i }}{% endfor %}",
    "a loop named forloop": "{% for forloop in items %}{{ forloop }}{% endfor %}",
    "a jump out of several whens": "{% for i in items %}{{ i }}{% case i %}{% when 1 or 1 or 2 %}"
    "{% if i == 2 %}{% break %}{% endif %}x{% continue %}{% endcase %}y{% endfor %}",
    "a jump from inside": "{% for i in items %}{{ i }}{% if [b] == 1 %}{% continue %}{% else %}"
    "{% if i == 2 %}{% break %}{% endif %}{% endif %}-{% endfor %}",
    "forloop handed on": "{% for i in items %}{{ forloop.index }}{{ forloop | compact }}"
    "{{ forloop.index }}{% endfor %}",
    "a filter's own words": "{{ a | append: value: 'x' }}{{ a | default: context: 1 }}",
    "loops in loops": "".join(
        f"{{% for i{n} in items limit:2 %}}{{{{ forloop.index }}}}" for n in range(9)
    )
    + "{% endfor %}" * 9,
    "many conditions": f"{{% if {'a == 1 or b == 2 and ' * 50}a %}}x{{% endif %}}",
    "many filters": f"{{{{ a {'| append: b ' * 90}}}}}",
}


@pytest.mark.parametrize("name", _LEFT)
def test_what_is_left_to_python_liquid_runs_over_the_same_context(name: str) -> None:
    around = "{% for x in (1..2) %}{% assign i = x %}{{ x }}[HERE]{{ i }}{{ x }}{% endfor %}{{ y }}"
    parts = _parts(around.replace("[HERE]", _LEFT[name]), "{{ x }}{{ i }}")
    assert "by_liquid" in _names(parts[0].code)
    for items in ([1, 2, 3], [3, 2, 1], [2], "12", None, {"a": 1}):
        _assert_equal(parts, {"items": items, "a": "q", "b": "a", "c": 2})


@pytest.mark.parametrize("tag", ["{{ %s }}", "{%% assign c = %s %%}{{ c }}"])
def test_path_that_is_too_deep_for_the_compiler_is_python_liquids(tag: str) -> None:
    depth = 320
    parts = _parts(tag % ("a[" * depth + "b" + "]" * depth))
    _assert_equal(parts, {"a": {"x": "x"}, "b": "x"})
    assert running.run(parts, {"a": {"x": "x"}, "b": "x"}) == ["x"]


def test_part_with_too_many_nodes_is_python_liquids() -> None:
    part = part_of(sandbox.parse("{{ a }}" * 2_001))
    assert part.code is None
    assert running.run([part], {"a": "x"}) == ["x" * 2_001]


_FILES = sorted((django_settings.BASE_DIR / "templates").glob("email*/**/*.*"))


@pytest.mark.parametrize("path", _FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_nothing_of_our_own_templates_is_left_to_python_liquid(path: Path) -> None:
    for source in path.read_text(encoding="utf-8").split("{{ body }}"):
        (part,) = _parts(source)
        assert "by_liquid" not in _names(part.code)
        for values in (SAMPLE_CONTEXT, {}):
            assert _outcome(run_code, [part], plain(values))
            _assert_equal([part], plain(values))


# --- What is run --------------------------------------------------------------------------

_ATTACK = "'+__import__('os').system('id')+'"
_ATTACKS = (
    f'{_ATTACK}\n"""\nimport os\n#{{{{ a[\'{{}}\'] | default: "{_ATTACK}" }}}}',
    f'{{% assign __import__ = "{_ATTACK}" %}}{{% for __class__ in __globals__ limit: 2 %}}'
    "{{ __class__.__builtins__ }}{{ forloop }}{% endfor %}",
    f'{{% if a == "{_ATTACK}" %}}{{{{ a | default: allow_false: true, __import__: 7 }}}}'
    "{% endif %}",
    f'{{% case a %}}{{% when "{_ATTACK}" %}}{{% capture exec %}}eval{{% endcapture %}}'
    "{% endcase %}{{ (1..98765) }}{{ 98765.25 }}",
)


@pytest.mark.parametrize("source", _ATTACKS)
def test_nothing_of_a_template_is_in_the_code(source: str) -> None:
    (part,) = _parts(source)
    assert part.code is not None
    code = part.code.__code__
    names = {*code.co_names, *code.co_varnames, *code.co_freevars, *code.co_cellvars}
    assert {name for name in names - _OURS if not re.fullmatch(r"[a-z]\d*|[LGT]", name)} == set()
    words = {constant for constant in code.co_consts if isinstance(constant, str)}
    assert words <= {"", "\r", "stopindex"}
    assert all(
        constant is None or isinstance(constant, str | int | tuple) for constant in code.co_consts
    )
    assert not {98765, 98764, 98766} & {
        constant for constant in code.co_consts if isinstance(constant, int)
    }
    assert part.code.__globals__["__builtins__"] == {}


_OURS = {
    *HELPERS,
    *("context", "frame", "locals", "globals", "tag_namespace", "loops", "scope", "parentloop"),
    *("append", "join", "get", "push", "pop", "spend", "assign", "count", "__class__", "_"),
}


def _names(code: Any) -> set[str]:
    return set(code.__code__.co_names)

"""A template can neither reach out of its data nor outlast its budget."""

import pytest

from content.rendering import RenderError
from tests.content.helpers import body, in_text, rendered
from tests.patience import cpu_limit

BIG = "x" * 50_000

BOMBS = {
    "huge loop": "{% for i in (1..1000000000) %}x{% endfor %}",
    "huge loop, empty body": "{% for i in (1..1000000000) %}{% endfor %}",
    "huge loop, blank body": "{% for i in (1..1000000000) %} {% endfor %}",
    "huge loop reversed": "{% for i in (1..1000000000) reversed %}{% break %}{% endfor %}",
    "far offset": "{% for i in (1..10000000000) limit:1 offset:9999999990 %}x{% endfor %}",
    "range beyond 64 bits": "{% for i in (1..99999999999999999999999999) %}x{% endfor %}",
    "range from data": "{% for i in (1..n) %}x{% endfor %}",
    "nested loops": "{% for a in (1..1000) %}{% for b in (1..1000) %}{% for c in (1..1000) %}"
    "{% endfor %}{% endfor %}{% endfor %}",
    "nested loops that break": "{% for a in (1..9999) %}{% for b in (1..9999) %}{% break %}"
    "{% endfor %}{% endfor %}",
    "loops side by side": "{% for a in (1..9999) %}{% endfor %}" * 2_000,
    "loop with a long body": "{% for a in (1..9999) %}"
    + "{% if a %}{% endif %}" * 4_000
    + "{% endfor %}",
    "loop over data": "{% for a in many %}{% for b in many %}{% endfor %}{% endfor %}",
    "loop over conditions": "{% for a in (1..9999) %}{% if big contains other %}{% endif %}"
    "{% endfor %}" * 50,
    "output": "{% for a in (1..9999) %}" + "x" * 1_000 + "{% endfor %}",
    "output of data": "{% for a in (1..9999) %}{{ big }}{% endfor %}",
    "append": "{% assign x = 'aaaaaaaaaa' %}" + "{% assign x = x | append: x %}" * 40,
    "append in a loop": "{% assign x = 'a' %}{% for i in (1..9999) %}"
    "{% assign x = x | append: x %}{% endfor %}",
    "prepend": "{% assign x = 'aaaaaaaaaa' %}" + "{% assign x = x | prepend: x %}" * 40,
    "capture": "{% assign x = 'aaaaaaaaaa' %}"
    + "{% capture x %}{{ x }}{{ x }}{% endcapture %}" * 40,
    "replace": "{{ big | replace: 'x', big }}",
    "replace of nothing": "{{ big | replace: '', big }}",
    "replace_first": "{% assign x = big %}" + "{% assign x = x | replace_first: 'x', x %}" * 40,
    "join": "{{ big | split: '' | join: big }}",
    "join of a range": "{{ (1..1000000000) | join }}",
    "sort of a range": "{{ (1..1000000000) | sort | first }}",
    "reverse of a range": "{{ (1..1000000000) | reverse }}",
    "sum of a range": "{{ (1..1000000000) | sum }}",
    "slice of a range": "{{ (1..1000000000) | slice: 0, 1000000000 }}",
    "map of a range": "{{ (1..1000000000) | map: 'x' }}",
    "range in an argument": "{{ many | concat: (1..1000000000) }}",
    "range in an assignment": "{% assign r = (1..1000000000) %}{{ r | last }}",
    "range in a condition": "{% if (1..1000000000) contains 'x' %}{% endif %}",
    "range in elsif": "{% if no %}{% elsif (1..1000000000) contains 'x' %}{% endif %}",
    "range in unless": "{% unless (1..1000000000) contains 'x' %}{% endunless %}",
    "range in and": "{% if many and (1..1000000000) contains 'x' %}{% endif %}",
    "range in case": "{% case (1..1000000000) %}{% when 1 %}{% endcase %}",
    "range in when": "{% case 1 %}{% when (1..1000000000) %}{% endcase %}",
    "range in a path": "{{ many[r[(1..1000000000)]] }}",
    "range in limit": "{% for i in many limit:(1..1000000000) %}{% endfor %}",
    "concat": "{% assign x = many %}" + "{% assign x = x | concat: x %}" * 40,
    "list of big texts": "{% assign x = bigs %}" + "{% assign x = x | concat: x %}" * 9 + "{{ x }}",
    "list of big texts joined": "{% assign x = bigs %}"
    + "{% assign x = x | concat: x %}" * 9
    + "{{ x | join: '' }}",
    "list of big texts in upper case": "{% assign x = bigs %}"
    + "{% assign x = x | concat: x %}" * 9
    + "{{ x | upcase }}",
    "number": "{% assign x = 9999999999 %}" + "{% assign x = x | times: x %}" * 40,
    "split": "{% for i in (1..9999) %}{% assign y = big | split: '' %}{% endfor %}",
    "sorting": "{% for i in (1..9999) %}{% assign y = many | sort | reverse %}{% endfor %}",
    "many names": "".join(f"{{% assign a{i} = big %}}" for i in range(4_000)),
    "date format": "{% for i in (1..9999) %}{{ 0 | date: '%0999999999Y%0999999999Y' }}{% endfor %}"
    * 20,
    "tags inside strip_html": "{% for i in (1..9999) %}{{ open | strip_html }}{% endfor %}",
}

# What the parser itself could be made to chew on.
SOURCE_BOMBS = {
    "nested ifs": "{% if a %}" * 5_000,
    "nested loops": "{% for a in b %}" * 5_000 + "{% endfor %}" * 5_000,
    "raw never closed": "{% raw %}" * 11_000,
    "raw in a comment": "{% comment %}" + "{% raw %}" * 10_000,
    "doc never closed": "{% doc %}" * 11_000,
    "tag never closed": "{% comment %}" + "{% a " * 19_000,
    "output never closed": "{{ a " * 19_000,
    "parentheses": "{{ " + "(" * 90_000 + " }}",
    "quotes": "{{ " + "'\"" * 45_000 + "' }}",
    "brackets": "{{ a" + "[a" * 900 + "]" * 900 + " }}",
    "conditions": "{% if " + "a and " * 330 + "a %}{% endif %}",
    "filters": "{{ a" + " | upcase" * 200 + " | nope }}",
    "white space": "{{ a" + " " * 90_000 + "}",
    "tags of white space": "{%" + " " * 99_000,
    "source": "x" * 100_001,
    "less-thans": "<" * 90_000,
    "open comments": "<!--" * 20_000,
    "open conditional comments": "<!--[if" * 14_000,
    "open tags": "<a title='" * 9_999,
    "digits": "{{ " + "9" * 1_900 + " | plus: 1 }}",
}

DATA = {
    "n": 10**9,
    "big": BIG,
    "other": BIG[:-1] + "y",
    "bigs": [BIG] * 20,
    "many": list(range(5_000)),
    "r": {},
    "open": "<" * 50_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_stopped(name: str) -> None:
    with cpu_limit(), pytest.raises(RenderError) as stopped:
        rendered("<p>x</p>", DATA, text=BOMBS[name])
    assert stopped.value.field == "text"
    assert BIG[:20] not in str(stopped.value)


@pytest.mark.parametrize("name", SOURCE_BOMBS)
def test_source_bomb_is_stopped(name: str) -> None:
    for field in ("html", "text"):
        with cpu_limit(), pytest.raises(RenderError) as stopped:
            rendered(**{"html": "<p>x</p>", field: SOURCE_BOMBS[name] + "{% nope %}"})
        assert stopped.value.field == field


def test_large_but_honest_mail_stays_within_the_budget() -> None:
    row = (
        "<tr><td>{{ i.name | default: 'x' }}</td><td>{{ i.price | times: 2 | round: 2 }}</td></tr>"
    )
    items = [{"name": f"Thing {n}", "price": n + 0.5} for n in range(1_000)]
    assert "Thing 999" in body(
        f"<table>{{% for i in items %}}{row}{{% endfor %}}</table>", {"items": items}
    )


REACHING = [
    "{{ settings }}",
    "{{ settings.SECRET_KEY }}",
    "{{ self }}",
    "{{ request.user }}",
    "{{ config.items }}",
    "{{ ''.__class__ }}",
    "{{ user.__class__ }}",
    "{{ user.__class__.__mro__[1].__subclasses__ }}",
    "{{ user['__class__'] }}",
    '{{ user["__init__"]["__globals__"] }}',
    "{{ list.append }}",
    "{{ list.__len__ }}",
    "{{ list['__class__'] }}",
    "{{ user.keys }}",
    "{{ user.items }}",
    "{{ user.get }}",
    "{{ name.upper }}",
    "{{ name.format }}",
    "{{ name.__class__ }}",
    "{{ name[0] }}",
    "{{ number.real }}",
    "{{ number.__class__ }}",
    "{{ forloop.__class__ }}",
    "{% for i in list %}{{ forloop.__class__ }}{{ forloop.it }}{{ forloop.step }}{% endfor %}",
    "{{ now }}",
    "{{ today }}",
    "{{ now.__class__ }}",
    "{{ globals }}",
    "{{ context.env }}",
    "{{ template }}",
    "{{ parentloop }}",
    "{{ nothing | default: settings }}",
    "{{ list | map: '__class__' }}",
    "{{ list | map: '__init__' | first }}",
    "{{ user | map: '__class__' }}",
    "{{ list | where: '__class__' }}",
    "{{ user | sort: '__class__' | first }}",
]


@pytest.mark.parametrize("source", REACHING)
def test_python_objects_are_out_of_reach(source: str) -> None:
    data = {"user": {"a": 1}, "list": [{"b": 2}], "name": "Ada", "number": 7}
    try:
        printed = in_text(source, data)
    except RenderError:
        return
    assert printed.strip() in ("", "Ada", "7")


REFUSED = {
    "{% include 'emails/welcome/body.html' %}": "unexpected tag 'include'",
    '{% include "/etc/passwd" %}': "unexpected tag 'include'",
    "{% render 'x' %}": "unexpected tag 'render'",
    "{% extends 'x' %}": "unexpected tag 'extends'",
    "{% block x %}{% endblock %}": "unexpected tag 'block'",
    "{% layout 'x' %}": "unexpected tag 'layout'",
    "{% macro x %}{% endmacro %}": "unexpected tag 'macro'",
    "{% load static %}": "unexpected tag 'load'",
    "{% debug %}": "unexpected tag 'debug'",
    "{% csrf_token %}": "unexpected tag 'csrf_token'",
    "{% autoescape off %}{% endautoescape %}": "unexpected tag 'autoescape'",
    "{% import os %}": "unexpected tag 'import'",
    "{% python %}{% endpython %}": "unexpected tag 'python'",
    "{% tablerow i in x %}{% endtablerow %}": "unexpected tag 'tablerow'",
    "{% liquid\nassign x = 1\n%}": "unexpected tag 'liquid'",
    "{% echo x %}": "unexpected tag 'echo'",
    "{% ifchanged %}{% endifchanged %}": "unexpected tag 'ifchanged'",
    "{% increment x %}": "unexpected tag 'increment'",
    "{{ x | safe }}": "unknown filter 'safe'",
    "{{ x | raw }}": "unknown filter 'raw'",
    "{{ x | attr: '__class__' }}": "unknown filter 'attr'",
    "{{ x | format: 1 }}": "unknown filter 'format'",
    "{{ x | escapejs }}": "unknown filter 'escapejs'",
    "{{ x | base64_decode }}": "unknown filter 'base64_decode'",
    "{{ x | url_decode }}": "unknown filter 'url_decode'",
    "{{ x | eval }}": "unknown filter 'eval'",
    "{% if no %}{{ x | safe }}{% endif %}": "unknown filter 'safe'",
    "{% assign y = x | safe %}": "unknown filter 'safe'",
    "{% assign unsubscribe_url = 'x' %}": "reserved",
    "{% capture sender %}x{% endcapture %}": "reserved",
    "{{ x() }}": "expected",
    "{{ x.y() }}": "expected",
    "{{ 1 + 1 }}": "unexpected",
    "{{ x if y }}": "disallowed",
    "{{ }": "never closed",
    "{% if x %}": "expected tag endif",
    "{% endif %}": "unexpected tag 'endif'",
}


@pytest.mark.parametrize("source", REFUSED)
@pytest.mark.parametrize("field", ["subject", "preheader", "html", "text"])
def test_what_is_not_on_the_lists_is_refused(source: str, field: str) -> None:
    with pytest.raises(RenderError, match=REFUSED[source]) as refused:
        rendered(**{"html": "<p>x</p>", field: source})
    assert refused.value.field == field


@pytest.mark.parametrize(
    "value", ["{{7*7}}", "{{ user.email }}", "{% for i in (1..9) %}x{% endfor %}"]
)
def test_value_with_template_syntax_is_printed_literally(value: str) -> None:
    mail = rendered(
        "<p>{{ name }}</p>", {"name": value}, subject="{{ name }}", preheader="{{ name }}"
    )
    assert mail.subject == value
    assert value in mail.text
    assert mail.html.count(value) == 3


def test_layout_loop_variable_does_not_leak() -> None:
    assert in_text("{% for x in list %}{% endfor %}{{ x }}", {"list": [1]}) == ""

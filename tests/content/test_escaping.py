"""Nothing a value contains becomes a tag, an attribute or a scheme: read back with an HTML parser
that follows the standard."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from bleach._vendor import html5lib
from hypothesis import given, settings
from hypothesis import strategies as st

from content.html_state import Mode, State, advance
from content.rendering import RenderError, compile_part
from tests.content.helpers import body, rendered

PAYLOADS = [
    "<script>alert(1)</script>",
    "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
    '"><script>alert(1)</script>',
    "'><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<img src=x onerror=alert(1)//",
    "<svg/onload=alert(1)>",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    "<math><mtext><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' onmouseover='alert(1)",
    '" autofocus onfocus=alert(1) x="',
    "x onmouseover=alert(1)",
    "` onmouseover=alert(1)",
    "</title><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "</textarea><script>alert(1)</script>",
    "--><script>alert(1)</script>",
    "--!><script>alert(1)</script>",
    "<!--",
    "<![CDATA[<script>alert(1)</script>]]>",
    "]]><script>alert(1)</script>",
    "<?php echo 1 ?>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<form action=//evil.example><input name=x>",
    "<a href=javascript:alert(1)>x</a>",
    "</td></tr></table><h1>Owned</h1>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)",
    "\\u003cscript\\u003ealert(1)",
    "%3Cscript%3Ealert(1)%3C/script%3E",
    "\uff1cscript\uff1ealert(1)\uff1c/script\uff1e",
    "<\x00script>alert(1)</script>",
    "<scr\x00ipt>alert(1)</scr\x00ipt>",
    "{{7*7}}",
    "{% for i in (1..9) %}<b>{{ i }}</b>{% endfor %}",
    "{{ user.email | append: '<b>' }}",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    " javascript:alert(1)",
    "java\tscript:alert(1)",
    "java\nscript:alert(1)",
    "\x01javascript:alert(1)",
    "javascript&colon;alert(1)",
    "javascript&#58;alert(1)",
    "&#106;avascript:alert(1)",
    "vbscript:msgbox(1)",
    "data:text/html,<script>alert(1)</script>",
    "data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==",
    "file:///etc/passwd",
    "//evil.example/x",
    "/\\evil.example",
    "\\\\evil.example",
    "http:javascript:alert(1)",
    'https://shop.example/?next=javascript:alert(1)"><b>',
    'https://shop.example/" onclick="alert(1)',
    "expression(alert(1))",
    "red;background:url(javascript:alert(1))",
    "red}</style><script>alert(1)</script>",
    "url(//evil.example/track)",
    "a\u2028b\u2029c",
    "\u202egnp.exe",
    "\ufeff<b>x</b>",
    "\ud800<b>x</b>",
    "<" * 500,
    "\"'<>&" * 50,
]

PLACES = {
    "text": "<p>{{ v }}</p>",
    "first in text": "{{ v }}",
    "text, line breaks kept": "<p>{{ v | newline_to_br }}</p>",
    "text after escape": "<p>{{ v | escape | escape_once }}</p>",
    "between tags": "<table><tr><td>{{ v }}</td></tr></table>",
    "title attribute": '<img alt="{{ v }}" src="https://x.example/a.png">',
    "single quotes": "<p title='{{ v }}'>x</p>",
    "two in one attribute": '<p title="{{ v }}{{ v }}">x</p>',
    "class": '<p class="a {{ v }}">x</p>',
    "data attribute": '<p data-x="{{ v }}">x</p>',
    "style": '<p style="color:{{ v }}">x</p>',
    "style at the end": '<p style="color:red;width:{{ v }}px">x</p>',
    "link": '<a href="{{ v }}">x</a>',
    "link with spaces": '<a href=" {{ v }} ">x</a>',
    "two in one link": '<a href="{{ v }}{{ v }}">x</a>',
    "upper-case link": '<A HREF="{{ v }}">x</A>',
    "image": '<img src="{{ v }}">',
    "background": '<table background="{{ v }}"><tr><td>x</td></tr></table>',
    "end of a link": '<a href="https://shop.example/?q={{ v }}">x</a>',
    "path of a link": '<a href="https://shop.example/{{ v }}/x">x</a>',
    "behind the host": '<a href="https://shop.example{{ v }}">x</a>',
    "host": '<a href="https://{{ v }}/x">x</a>',
    "sub-domain": '<a href="https://{{ v }}.shop.example/">x</a>',
    "two host parts": '<a href="https://{{ v }}{{ v }}">x</a>',
    "mailto": '<a href="mailto:{{ v }}">x</a>',
    "comment": "<!-- {{ v }} --><p>x</p>",
    "Outlook only": '<!--[if mso]><a href="{{ v }}">{{ v }}</a><![endif]--><p>x</p>',
    "everybody but Outlook": "<!--[if !mso]><!--><p>{{ v }}</p><!--<![endif]-->",
    "captured": '{% capture c %}{{ v }}{% endcapture %}<a href="{{ c }}" title="{{ c }}">{{ c }}'
    "</a>",
    "assigned": '{% assign c = v | append: "<b>" %}<a href="{{ c }}">{{ c }}</a>',
    "glued around": "<p>{{ '<b>' | append: v | append: '</b>' }}</p>",
    "in a list": "<p>{{ list }}{{ list | join: '<br>' }}</p>",
    "in a loop": "{% for i in list %}<li title='{{ i }}'>{{ i }}</li>{% endfor %}",
    "in branches": '<a href="{% if w %}https://a.example/{% else %}https://b.example/{% endif %}'
    '{{ v }}">x</a>',
    "optional attribute": '<td {% if v %}title="{{ v }}"{% endif %}>x</td>',
    "replaced into markup": "<p>{{ '<b>x</b>' | replace: 'x', v }}</p>",
    "cut": "<p>{{ v | truncate: 20 }}{{ v | slice: 0, 5 }}{{ v | split: 'a' | last }}</p>",
    "upper case": "<p>{{ v | upcase }}{{ v | strip_html }}{{ v | url_encode }}</p>",
}


def _elements(html: str) -> Iterator[Any]:
    document = html5lib.parse(f"<!doctype html>{html}", namespaceHTMLElements=False)
    return document.iter()


def _shape(html: str) -> list[tuple[str, tuple[str, ...]]]:
    """Every element with its attributes' names, in order; a <br> is a line break kept."""
    return [
        (str(element.tag), tuple(sorted(element.attrib)))
        for element in _elements(html)
        if element.tag != "br"
    ]


def _addresses(html: str) -> list[str]:
    names = ("href", "src", "background", "action")
    return [e.attrib[n] for e in _elements(html) for n in names if n in e.attrib]


def _data(value: str) -> dict[str, Any]:
    return {"v": value, "list": [value, value]}


@pytest.mark.parametrize("place", PLACES)
def test_value_adds_no_tag_attribute_or_scheme(place: str) -> None:
    harmless = _shape(body(PLACES[place], _data("harmless")))
    for payload in PAYLOADS:
        html = body(PLACES[place], _data(payload))
        assert _shape(html) == harmless, payload
        for address in _addresses(html):
            assert re.match(r"(https?://|mailto:|#)", address.strip()), payload


@pytest.mark.parametrize("payload", PAYLOADS)
def test_value_does_not_change_the_frame(payload: str) -> None:
    def mail(value: str) -> str:
        data = {"v": value, "sender": {"name": value, "postal_address": value}}
        data |= {"unsubscribe_url": "https://x.example/u", "reason_line": value}
        return rendered("<p>{{ v }}</p>", data, subject="x {{ v }}", preheader="x {{ v }}").html

    assert _shape(mail(payload)) == _shape(mail("harmless"))


@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=10, deadline=None)
@given(
    value=st.text(alphabet=st.sampled_from("<>\"'`&;:/\\=-!%{}#()ajs\n\t \x00\u2028"), min_size=1)
)
def test_value_of_markup_characters_changes_no_structure(place: str, value: str) -> None:
    harmless = _shape(body(PLACES[place], _data("harmless")))
    assert _shape(body(PLACES[place], _data(value))) == harmless


@pytest.mark.parametrize(
    ("source", "value", "expected"),
    [
        (
            '<a href="{{ v }}">',
            "https://shop.example/?a=1&b=2",
            "https://shop.example/?a=1&amp;b=2",
        ),
        ('<a href="{{ v }}">', "mailto:ada@example.com", "mailto:ada@example.com"),
        ('<a href="{{ v }}">', "javascript:alert(1)", "#"),
        ('<a href="{{ v }}">', "/cart", "#"),
        ('<a href="{{ v }}">', "", "#"),
        ('<a href="https://shop.example{{ v }}">', "/cart", "https://shop.example/cart"),
        (
            '<a href="https://shop.example{{ v }}">',
            ".evil.example",
            "https://shop.example/.evil.example",
        ),
        (
            '<a href="https://shop.example{{ v }}">',
            "@evil.example",
            "https://shop.example/@evil.example",
        ),
        ('<a href="https://{{ v }}.shop.example/">', "de", "https://de.shop.example/"),
        ('<a href="https://{{ v }}.shop.example/">', "evil.example/", "https://.shop.example/"),
        ('<a href="https://shop.example/{{ v }}">', "a b", "https://shop.example/a b"),
        ('<p style="color:{{ v }}">', "#ff0000", "color:#ff0000"),
        ('<p style="color:{{ v }}">', "red;position:fixed", "color:"),
    ],
)
def test_attribute_value_is_what_its_place_allows(source: str, value: str, expected: str) -> None:
    tag = source[1]
    assert f'"{expected}"' in body(f"{source}x</{tag}>", {"v": value})


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("<a href={{ v }}>x</a>", "quotes"),
        ("<a href=https://x.example/{{ v }}>x</a>", "quotes"),
        ("<{{ v }}>x", "middle of a tag"),
        ("<h{{ v }}>x", "inside a tag"),
        ("<p {{ v }}>x</p>", "inside a tag"),
        ("<p data-{{ v }}='1'>x</p>", "inside a tag"),
        ('<p onclick="{{ v }}">x</p>', "attribute onclick"),
        ('<img srcset="{{ v }}">', "attribute srcset"),
        ('<p xlink:href="{{ v }}">x</p>', "attribute xlink:href"),
        ('<a href="java{{ v }}">x</a>', "has to begin with"),
        ('<a href="javascript:{{ v }}">x</a>', "has to begin with"),
        ('<a href="&#106;avascript:{{ v }}">x</a>', "has to begin with"),
        ('<a href="data:text/html,{{ v }}">x</a>', "has to begin with"),
        ('<a href="https:{{ v }}">x</a>', "has to begin with"),
        ('<a href="//{{ v }}">x</a>', "has to begin with"),
        ('<a href="/cart/{{ v }}">x</a>', "has to begin with"),
        ("<style>p { color: {{ v }} }</style>", "<style>"),
        ("<script>{{ v }}</script>", "<script>"),
        ("<script>1</script>", "<script>"),
        ("<svg></svg>", "<svg>"),
        ("<iframe></iframe>", "<iframe>"),
        ("<html><body>x</body></html>", "frame"),
        ("<!--{{ v }}-->", "middle of a tag or comment"),
        ("<!-- -{{ v }}-> -->", "middle of a tag or comment"),
        ("<p", "tag is never closed"),
        ('<p title="x>', "tag is never closed"),
        ("<!-- x", "comment is never closed"),
        ("<style>p {}", "<style> is never closed"),
        ('{% if v %}<a href="{% endif %}x">', "leaves a tag or quote open"),
        ('<a href="{% if v %}https://a.example/{% else %}x{% endif %}{{ v }}">x</a>', "leaves"),
        ('{% for i in v %}<a title="{% endfor %}', "leaves a tag or quote open"),
        ('{% for i in v %}<a title="{% break %}"></a>{% endfor %}', "leaves a tag or quote open"),
        ('{% case v %}{% when 1 %}<a title="{% endcase %}', "leaves a tag or quote open"),
        ("{% capture c %}<b>{{ v }}</b>{% endcapture %}", "capture text only"),
        ("{% capture c %}{% if v %}<b>{% endif %}{% endcapture %}", "capture text only"),
    ],
)
def test_template_with_variable_where_no_escaping_helps_is_refused(
    source: str, reason: str
) -> None:
    with pytest.raises(RenderError, match=re.escape(reason)):
        compile_part("html", source)


def test_refusal_names_the_line() -> None:
    with pytest.raises(RenderError, match=r"^html: line 3: "):
        compile_part("html", "<p>\n</p>\n<p {{ v }}>")


@given(st.text(alphabet=st.sampled_from("<>/!-[]\"'= abaifstyle"), max_size=60), st.data())
@settings(max_examples=300, deadline=None)
def test_html_state_does_not_depend_on_how_the_text_is_cut(text: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text)))
    try:
        whole = advance(State(), text)
    except Exception as error:  # noqa: BLE001 - the same one is expected again
        with pytest.raises(type(error)):
            advance(advance(State(), text[:cut]), text[cut:])
        return
    assert advance(advance(State(), text[:cut]), text[cut:]) == whole


def test_frame_of_the_application_is_placed_between_tags() -> None:
    assert advance(State(), rendered().html) == State(Mode.TEXT)

"""Links are exchanged in place: read back with an HTML parser that follows the standard, they lead
where they should, and everything else is what it was."""

import re

import pytest
from bleach._vendor import html5lib
from bleach._vendor.html5lib._tokenizer import HTMLTokenizer
from bleach._vendor.html5lib.constants import tokenTypes
from hypothesis import example, given, settings
from hypothesis import strategies as st

from content.html_state import Forbidden
from content.html_tags import attributes, skipping_all_but, tags
from content.hyperlinks import exchange_links, unescape, without_marks
from tests.patience import cpu_limit

START_TAG = tokenTypes["StartTag"]
NEW = "https://t.example/t/c/token"


def exchanged(html: str, *, last: str = "") -> str:
    return exchange_links(html, lambda _: NEW, last=last)


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ('<a href="https://a.example/">x</a>', f'<a href="{NEW}">x</a>'),
        ("<a href='https://a.example/'>x</a>", f"<a href='{NEW}'>x</a>"),
        ("<a href=https://a.example/>x</a>", f"<a href={NEW}>x</a>"),
        ("<a href = \n'https://a.example/' >", f"<a href = \n'{NEW}' >"),
        ('<A HREF="https://a.example/">', f'<A HREF="{NEW}">'),
        ('<a/href="c">', f'<a/href="{NEW}">'),
        ('<a class="b"href="c">', f'<a class="b"href="{NEW}">'),
        ('<a title="a > b" href="c">', f'<a title="a > b" href="{NEW}">'),
        ('<a title=\'"\' href="c">', f'<a title=\'"\' href="{NEW}">'),
        ('<a title=it\'s href="c">', f'<a title=it\'s href="{NEW}">'),
        ('<area shape="rect" href="c">', f'<area shape="rect" href="{NEW}">'),
        ('<a href="c" href="d">', f'<a href="{NEW}" href="d">'),
        ('<!--[if mso]><a href="c"><![endif]-->', f'<!--[if mso]><a href="{NEW}"><![endif]-->'),
    ],
)
def test_link_in_any_spelling_is_exchanged(html: str, expected: str) -> None:
    assert exchanged(html) == expected


@pytest.mark.parametrize(
    "html",
    [
        '<!-- <a href="c"> -->',
        '<img alt="<a href=\'c\'>" src="d">',
        '<style>a:after { content: "<a href=c>" }</style>',
        '<title><a href="c"></title>',
        '<textarea><a href="c"></textarea>',
        '<link href="c">',
        '<abbr href="c">',
        '<a data-href="c" name="href">',
        '</a href="c">',
        '<a class=b/href="c">',
        '<a href="c"',
        '<a href="c',
        "<!doctype html>",
        "<![CDATA[ <a href=c",
        "a < b and <3",
        "<",
        "",
    ],
)
def test_what_is_no_link_stays(html: str) -> None:
    assert exchanged(html) == html


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ('<a href="c" data-track="off">x', '<a href="c">x'),
        ('<a data-track="off" href="c">x', '<a href="c">x'),
        ("<a data-track=off href=c>x", "<a href=c>x"),
        ("<a href=c\n DATA-TRACK='Off'\n>x", "<a href=c\n>x"),
        # Without the space the neighbours would run together, or into each other.
        ('<a href=c data-track="off"id="d">', '<a href=c id="d">'),
        ('<a href=c data-track="off"/>', "<a href=c />"),
    ],
)
def test_marked_link_is_left_alone_and_the_mark_taken_out(html: str, expected: str) -> None:
    assert exchanged(html) == expected
    assert without_marks(html) == expected


def test_other_value_of_the_mark_is_none() -> None:
    assert exchanged('<a data-track="on" href="c">') == f'<a data-track="on" href="{NEW}">'


@pytest.mark.parametrize(
    "inside",
    ["https://a.example/x", " HTTP://a.example", "www.a.example", "<b>\n https://a.example"],
)
def test_link_that_shows_its_address_is_left_alone(inside: str) -> None:
    html = f'<a href="https://a.example/x">{inside}</a>'
    assert exchanged(html) == html


def test_address_after_the_link_is_not_its_text() -> None:
    assert (
        exchanged('<a href="c"></a>https://a.example') == f'<a href="{NEW}"></a>https://a.example'
    )


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<body>a</body></html>", "<body>a<i></body></html>"),
        ("<body>a</BODY >", "<body>a<i></BODY >"),
        ("<body><!-- </body> -->a</body>", "<body><!-- </body> -->a<i></body>"),
        ("a", "a<i>"),
    ],
)
def test_last_element_is_the_last_of_the_body(html: str, expected: str) -> None:
    assert exchange_links(html, lambda _: None, last="<i>") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("?a=1&amp;b=2", "?a=1&b=2"),
        ("?a=1&b=2", "?a=1&b=2"),
        ("?a=1&copy=2&reg=3&lt=4", "?a=1&copy=2&reg=3&lt=4"),
        ("?a=1&copyright=2", "?a=1&copyright=2"),
        ("?a&copy;b", "?a©b"),
        ("?a&copy", "?a©"),
        ("&#104;ttps&#x3a;//a&#47", "https://a/"),
        ("&nosuch;&", "&nosuch;&"),
        ("&amp;amp;", "&amp;"),
    ],
)
def test_value_is_understood_as_browsers_do(value: str, expected: str) -> None:
    assert unescape(value) == expected


@given(st.text(alphabet=st.sampled_from("&;=#x12acopyltgmqué "), max_size=30))
@settings(max_examples=500, deadline=None)
@example("&#2")
@example("&#x80;&#xd800;")
def test_value_is_understood_as_by_the_parser(value: str) -> None:
    (element,) = html5lib.parse(f'<a href="{value}">', namespaceHTMLElements=False).iter("a")
    # What nobody should write is only known to have been there.
    there = re.sub(r"[\x01-\x08\x0b\x0e-\x1f\ufffd]", "\0", element.attrib["href"])
    assert unescape(value).replace("\ufffd", "\0") == there


PIECES = [
    *("<a ", "<a href=", "<area href='", "href", "=", '"', "'", ">", "/>", "</a>", " ", "\n", "/"),
    *("https://a.example/?b&amp;c", "https://b.example", "mailto:x", "data-track=off", "<img alt="),
    *("<!--", "-->", "<!--[if mso]>", "<![endif]-->", "<style>", "</style>", "text", "<", "&"),
    *("<title>", "</title>", "<p class='x'>", "</body>", "<?", "</", "é", "-", "!"),
]


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
@settings(max_examples=1_000, deadline=None)
def test_nothing_but_the_address_is_changed_in_any_html(html: str) -> None:
    seen: list[str] = []
    unchanged = exchange_links(html, seen.append)  # type: ignore[arg-type]
    if "data-track" not in html:
        assert unchanged == html
    for number, address in enumerate(seen):
        calls = iter(range(len(seen)))
        changed = exchange_links(html, lambda _: "MARK" if next(calls) == number else None)  # noqa: B023
        before, _, after = changed.partition("MARK")
        assert unchanged.startswith(before)
        assert unchanged.endswith(after)
        assert unescape(unchanged[len(before) : len(unchanged) - len(after)]) == address


@given(st.lists(st.sampled_from([p for p in PIECES if "[" not in p]), max_size=25).map("".join))
@settings(max_examples=1_000, deadline=None)
def test_links_are_those_the_tokenizer_of_the_standard_finds(html: str) -> None:
    html = re.sub("<(/?)(style|title)", r"<\1b", html)  # which need a tree builder to be told
    found = [
        (tag.name, {name: unescape(a.text_in(html)) for name, a in attributes(html, tag).items()})
        for tag in tags(html)
        if not tag.name.startswith("/")
    ]
    expected = [
        (token["name"].lower(), {name.lower(): value for name, value in token["data"].items()})
        for token in HTMLTokenizer(html)
        if token["type"] == START_TAG
    ]
    assert found == expected


ODD_PIECES = ("<script>", "</math>", "<ſ>", "<a/", "<areax>", "<ABBR x=y>", "<p x=>", "<k", "\v")


@given(st.lists(st.sampled_from([*PIECES, *ODD_PIECES]), max_size=25).map("".join))
@settings(max_examples=1_000, deadline=None)
def test_no_tag_that_was_asked_for_is_passed_over(html: str) -> None:
    wanted = {"a", "area", "/body"}

    def found(skipped: re.Pattern[str] | None) -> list[object]:
        listed: list[object] = []
        try:
            listed.extend(tag for tag in tags(html, skipped) if tag.name in wanted)
        except Forbidden as error:
            listed.append(str(error))
        return listed

    assert found(skipping_all_but(wanted)) == found(None)


def test_forbidden_element_leaves_everything_as_it_was() -> None:
    html = '<a href="c">x</a><script><a href="d"></script>'
    with pytest.raises(Forbidden):
        list(tags(html))
    assert exchanged(html, last="<i>") == html


def test_hostile_size_takes_linear_time() -> None:
    html = '<a href="https://a.example/"><b ' * 20_000
    with cpu_limit():
        exchanged(html)
        exchanged("<a href=c> \n" * 20_000)
        exchanged("<b x=y>" * 50_000 + "<b x='" * 20_000)

"""What comes out: subject, HTML in its frame, text, and errors that tell nothing about anybody."""

import re
from datetime import UTC, datetime
from email.header import Header
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from hypothesis import given
from hypothesis import strategies as st

from common.clock import now
from content import rendering
from content.lint import SAMPLE_CONTEXT
from content.models import TemplateVersion
from content.rendering import RenderError, render
from content.text_part import text_from_html
from content.values import plain, subject_line
from tests.content.helpers import SENDER, body, configure_templates, in_text, rendered, version


@pytest.fixture
def base_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A templates directory of the test's own."""
    configure_templates(monkeypatch, base_dir=str(tmp_path))
    (tmp_path / "email").mkdir()
    return tmp_path


def test_templates_of_the_article_work_verbatim() -> None:
    assert (
        body("<h1>Welcome {{user.name}}</h1>", {"user": {"name": "Ada"}}) == "<h1>Welcome Ada</h1>"
    )
    receipt = "<h1>Receipt #{{order.id}}</h1><p>Total: {{order.total}}</p>"
    data = {"order": {"id": 7, "total": "49.90"}}
    assert body(receipt, data) == "<h1>Receipt #7</h1><p>Total: 49.90</p>"


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (None, ""),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (49.9, "49.9"),
        ("", ""),
        ("Zoë 🧣", "Zoë 🧣"),
        ([1, "a", None, True], "1atrue"),
        ({"a": 1}, ""),
        ([], ""),
        ("a\x00b\x07c\x85d", "abcd"),
        ("\ud83d\ude00", ""),
        ("\ufeffa\ufffeb\uffff", "ab"),
        ("a\tb\nc", "a\tb\nc"),
        (10**40, "1" + "0" * 40),
    ],
)
def test_value_is_printed_as_a_reader_expects(value: Any, printed: str) -> None:
    assert body("{{ v }}", {"v": value}) == printed
    assert in_text("{{ v }}", {"v": value}) == printed


@pytest.mark.parametrize(
    "source",
    [
        "{{ nothing }}",
        "{{ nothing.deeper[0].still }}",
        "{{ order.nothing }}",
        "{{ order[nothing] }}",
        "{{ order.id.nothing }}",
        "{{ items[99].name }}",
        "{% for i in nothing %}x{% endfor %}",
        "{% if nothing > 1 %}x{% endif %}",
        "{% if nothing contains 'x' %}x{% endif %}",
        "{% if nothing %}x{% endif %}",
        "{% if nothing != blank %}x{% endif %}",
        "{% if none != blank %}x{% endif %}",
        "{{ nothing | upcase | append: nothing | date: '%Y' }}",
        "{{ nothing | join: ', ' }}{{ nothing | first }}{{ nothing | sort }}",
        "{{ nothing | map: 'x' }}{{ nothing | sum: 'x' | times: nothing | replace: '0', '' }}",
        "{{ nothing | where: 'x' }}{{ nothing | split: ',' }}{{ nothing | compact }}",
    ],
)
def test_missing_value_prints_nothing_and_stops_nothing(source: str) -> None:
    assert in_text(source, {"order": {"id": 1}, "items": [], "none": None}) == ""


def test_half_a_surrogate_pair_is_refused_with_its_line() -> None:
    with pytest.raises(RenderError) as refused:
        rendered("<p>a</p>\n<p>\ud800</p>")
    assert refused.value.message == "line 2: half of a surrogate pair is no character"


def test_default_filter_fills_a_gap() -> None:
    data = {"hollow": ""}
    assert (
        in_text("{{ nothing | default: 'friend' }}{{ hollow | default: '!' }}", data) == "friend!"
    )


@pytest.mark.parametrize(
    ("value", "layout", "printed"),
    [
        ("2026-03-01T12:30:00+00:00", "%d %B %Y", "01 March 2026"),
        ("2026-03-01T23:30:00-05:00", "%d.%m.%Y %H:%M", "01.03.2026 23:30"),
        ("2026-03-01", "%A", "Sunday"),
        (1_772_366_400, "%Y-%m-%d", "2026-03-01"),
        (1_772_366_400_000, "%Y-%m-%d", "2026-03-01"),
        ("1772366400", "%Y-%m-%d", "2026-03-01"),
        ("now", "%Y", "2024"),
        ("today", "%Y", "2024"),
        ("soon", "%Y", "soon"),
        (10**30, "%Y", "1" + "0" * 30),
        (None, "%Y", ""),
        (True, "%Y", "true"),
        ("2026-03-01", "", "2026-03-01"),
    ],
)
def test_date_reads_what_events_carry(value: Any, layout: str, printed: str) -> None:
    data = {"v": value, "event": {"occurred_at": "2024-05-05T00:00:00+00:00"}}
    assert in_text(f"{{{{ v | date: '{layout}' }}}}", data) == printed


# --- Subject ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "x\r\nBcc: eve@example.com",
        "x\nBcc: eve@example.com",
        "x\rBcc: eve@example.com",
        "x\x0bBcc: eve@example.com",
        "x\x0cBcc: eve@example.com",
        "x\x1cBcc: eve@example.com",
        "x\x85Bcc: eve@example.com",
        "x\u2028Bcc: eve@example.com",
        "x\u2029Bcc: eve@example.com",
        "x\t\t  Bcc: eve@example.com",
        "x\r\n\r\nBcc: eve@example.com",
    ],
)
def test_subject_stays_one_line(value: str) -> None:
    mail = rendered(data={"v": value}, subject="Hello {{ v }}", preheader="{{ v }}")
    assert mail.subject in ("Hello x Bcc: eve@example.com", "Hello xBcc: eve@example.com")


def test_subject_template_with_line_breaks_is_one_line() -> None:
    assert rendered(subject=" Hello\r\n {% if true %}\n Ada{% endif %}\t").subject == "Hello Ada"


def test_subject_is_not_html() -> None:
    assert (
        rendered(data={"v": "Tom & <Jerry>"}, subject="{{ v | escape }}").subject == "Tom & <Jerry>"
    )


@pytest.mark.parametrize(
    "mark", ["\u202a", "\u202b", "\u202d", "\u202e", "\u2066", "\u2069", "\x00", "\ufeff"]
)
def test_subject_loses_marks_that_mislead(mark: str) -> None:
    assert rendered(data={"v": f"a{mark}b"}, subject="{{ v }}").subject == "ab"


@given(st.text(max_size=600))
def test_subject_is_one_short_header_line(text: str) -> None:
    line = subject_line(text)
    assert len(line) <= 250
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\ud800-\udfff]", line)
    assert len(Header(line, "utf-8", header_name="Subject").encode().encode()) <= 998 - len(
        "Subject: "
    )
    assert line == line.strip()
    assert subject_line(line) == line


@pytest.mark.parametrize("letter", ["a", "ä", "€", "🧣", "=", "_"])
def test_long_subject_is_cut_with_an_ellipsis(letter: str) -> None:
    line = subject_line(letter * 5_000)
    assert line.endswith("…")
    assert len(line) > 100
    assert len(Header(line, "utf-8", header_name="Subject").encode()) < 989


@pytest.mark.parametrize("subject", ["{{ nothing }}", " \n ", "{{ v }}"])
def test_empty_subject_is_an_error(subject: str) -> None:
    with pytest.raises(RenderError, match="subject: is empty") as error:
        rendered(data={"v": "\u202e"}, subject=subject)
    assert error.value.field == "subject"


# --- Frame --------------------------------------------------------------------------------


def test_marketing_mail_has_address_reason_and_way_out() -> None:
    data = {
        "sender": SENDER,
        "unsubscribe_url": "https://mail.example.com/u/abc",
        "reason_line": "You signed up.",
    }
    mail = rendered(data=data)
    assert 'href="https://mail.example.com/u/abc"' in mail.html
    assert ">Unsubscribe</a>" in mail.html
    assert "Unsubscribe: https://mail.example.com/u/abc" in mail.text
    for part in (mail.html, mail.text):
        assert "1 Harbour Road" in part
        assert "You signed up." in part


@pytest.mark.parametrize(
    "data", [{}, {"unsubscribe_url": "", "reason_line": ""}, {"unsubscribe_url": None}]
)
def test_transactional_mail_has_no_way_out(data: dict[str, Any]) -> None:
    mail = rendered(data=data)
    assert "nsubscribe" not in mail.html + mail.text
    assert mail.text == "x\n"


def test_preheader_is_hidden_in_front_and_absent_when_empty() -> None:
    data = {"name": "A&B"}
    html = rendered(data=data, preheader="For {{ name }}").html
    assert re.search(r'<div style="display:none;[^"]*">For A&amp;B', html)
    assert "display:none" not in rendered(preheader="{{ nothing }}").html


def test_frame_names_do_not_hide_the_payloads_own() -> None:
    data = {"subject": "Mathematics", "preheader": "p", "body": "b", "partial": "q"}
    assert (
        body("{{ subject }} {{ preheader }} {{ body }} {{ partial }}", data) == "Mathematics p b q"
    )


def test_mail_is_far_smaller_than_what_mailboxes_cut() -> None:
    assert len(rendered().html.encode()) < 8_000


def test_own_frame_is_taken_from_the_templates_directory(base_dir: Path) -> None:
    (base_dir / "email/layout.html").write_text(
        "<title>{{ subject }}</title><main>{{ body }}</main>"
    )
    mail = rendered("<p>x</p>", subject="A & B")
    assert mail.html == "<title>A &amp; B</title><main><p>x</p></main>"
    assert mail.text == "x\n"


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        ("<main></main>", "body"),
        ("{{ body }}{{ body }}", "body"),
        ("<p {{ body }}>", "layout: .*never closed"),
        ("{{ body }}<p {{ x }}>", "layout: .*inside a tag"),
        ("{% nope %}{{ body }}", "layout: .*nope"),
    ],
)
def test_broken_frame_is_reported_as_such(base_dir: Path, layout: str, reason: str) -> None:
    (base_dir / "email/layout.html").write_text(layout)
    with pytest.raises(RenderError, match=reason) as error:
        rendered()
    assert error.value.field == "layout"


# --- Text part ----------------------------------------------------------------------------


def test_text_is_made_from_the_html_without_the_frame() -> None:
    html = (
        "<style>p { color: red }</style><h1>Hello {{ name }}</h1><p>One&nbsp;two<br>three</p>"
        '<ul><li>a</li><li>b</li></ul><p><a href="https://x.example/?a=1&amp;b=2">Go</a></p>'
        '<p><a href="mailto:a@example.com">Write</a> <a name="x">here</a></p>'
    )
    assert rendered(html, {"name": "<Ada>", "sender": {"name": "Shop"}}).text == (
        "Hello <Ada>\n\nOne two\nthree\n\n  * a\n  * b\n\nGo <https://x.example/?a=1&b=2>\n\n"
        "Write <a@example.com> here\n"
    )


def test_text_that_is_given_is_not_escaped() -> None:
    mail = rendered(data={"v": "Tom & <Jerry>"}, text="Dear {{ v }},\n\n\n\nbye  \n")
    assert mail.text == "Dear Tom & <Jerry>,\n\nbye\n"


def test_text_of_nested_tables_and_no_content() -> None:
    assert text_from_html("") == ""
    assert (
        text_from_html("<table><tr><td><table><tr><td>x</td></tr></table></td></tr></table>") == "x"
    )
    assert text_from_html("<!-- only -->") == ""


def test_very_deep_html_does_not_hurt_the_process() -> None:
    assert "x" in rendered("<p>x</p>" + "<div>" * 5_000 + "y" + "</div>" * 5_000).text


# --- Data ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [object(), datetime(2026, 1, 1, tzinfo=UTC), b"x", {1, 2}, print, len]
)
def test_python_object_in_the_data_is_refused(value: Any) -> None:
    with pytest.raises(RenderError, match=f"contains a {type(value).__name__}"):
        rendered(data={"a": [{"b": value}]})


def test_text_subclass_becomes_plain_text() -> None:
    class Shouting(str):
        def __str__(self) -> str:
            return "!!!"

        def __html__(self) -> str:
            return "<b>"

    data = plain({"v": Shouting("a<b"), Shouting("k"): 1})
    assert data == {"v": "a<b", "k": 1}
    assert {type(data["v"]), *map(type, data)} == {str}


def test_data_nested_too_deeply_is_refused() -> None:
    data: Any = "x"
    for _ in range(100):
        data = [data]
    with pytest.raises(RenderError, match="nested too deeply"):
        rendered(data={"v": data})


def test_data_is_not_changed_by_rendering() -> None:
    data = {"list": [3, 1, 2], "map": {"a": "x\x00"}}
    rendered("{% assign list = list | sort | reverse %}{{ list }}", data)
    assert data == {"list": [3, 1, 2], "map": {"a": "x\x00"}}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_any_json_renders_and_encodes(payload: dict[str, Any]) -> None:
    data = {**payload, "payload": payload, "values": list(payload.values())}
    html = (
        "{{ payload }}{% for v in values %}{{ v }}{{ v | upcase }}"
        "{% for w in v %}{{ w }}{% endfor %}{% endfor %}"
    )
    mail = rendered(html, data, subject="s {{ values }}", text=html)
    for part in (mail.subject, mail.html, mail.text):
        assert part.encode().decode() == part


# --- Errors -------------------------------------------------------------------------------

SECRET = "ada.secret@example.com"


@pytest.mark.parametrize(
    "source",
    [
        "{{ v | date: '%Y' | times: v | divided_by: 0 }}",
        "{{ 1 | divided_by: v }}",
        "{{ v | truncate: v }}",
        "{{ v | slice: v }}",
        "{{ list | sort }}",
        "{{ list | sum }}",
        "{{ list | sum: 'v' }}",
        "{{ v | round: v }}{{ inf | ceil }}",
        "{% if v > 1 %}{% endif %}",
        "{% if list < v %}{% endif %}",
        "{% if number contains v %}{% endif %}",
        "{% for i in list limit: v %}{% endfor %}",
        "{{ v | replace: '', v | replace: '', v | replace: '', v | replace: '', v }}",
        "{% break %}",
        "{{ v | upcase: v }}",
    ],
)
def test_error_names_the_part_and_hides_the_data(source: str) -> None:
    data = {"v": SECRET, "list": [SECRET, {"v": SECRET}, 1], "number": 5, "inf": float("inf")}
    with pytest.raises(RenderError) as error:
        rendered("<p>x</p>", data, text=source)
    assert error.value.field == "text"
    assert str(error.value).startswith("text: ")
    assert "secret" not in str(error.value).lower()
    assert error.value.__cause__ is None


def test_error_names_the_line() -> None:
    with pytest.raises(RenderError, match=r"^html: line 2: unknown filter 'nope'$"):
        rendered("<p>\n{{ v | nope }}</p>")
    with pytest.raises(RenderError, match=r"^text: line 3: "):
        rendered(text="a\nb\n{{ 1 | divided_by: 0 }}")


# --- Cache --------------------------------------------------------------------------------


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The keys of the versions compiled during the test, with an empty cache to begin with."""
    compiled: list[int | None] = []
    original = rendering._compile

    def counted(version: TemplateVersion) -> Any:
        compiled.append(version.pk)
        return original(version)

    monkeypatch.setattr(rendering, "_compile", counted)
    monkeypatch.setattr(rendering, "_cache", {})
    return compiled


def test_published_version_is_compiled_once(compilations: list[int | None]) -> None:
    for _ in range(3):
        render(version(pk=1, published_at=now()), {})
    assert compilations == [1]


def test_draft_is_compiled_every_time(compilations: list[int | None]) -> None:
    for _ in range(2):
        render(version(pk=1), {})
    assert compilations == [1, 1]


def test_compiled_versions_expire(
    compilations: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    render(version(pk=1, published_at=now()), {})
    soon = rendering.time.monotonic() + django_settings.EMAILAUTO.templates.cache_ttl + 1
    monkeypatch.setattr(rendering.time, "monotonic", lambda: soon)
    render(version(pk=1, published_at=now()), {})
    assert compilations == [1, 1]


def test_cache_does_not_grow_without_bound(
    compilations: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "_CACHED_VERSIONS", 3)
    for pk in (1, 2, 3, 4):
        render(version(pk=pk, published_at=now()), {})
    assert list(rendering._cache) == [2, 3, 4]


# --- The templates that come with the application -----------------------------------------

DEMO = sorted((Path(django_settings.BASE_DIR) / "templates/emails").glob("*/"))


@pytest.mark.parametrize("directory", DEMO, ids=lambda path: path.name)
@pytest.mark.parametrize(
    "data",
    [
        {},
        SAMPLE_CONTEXT,
        {
            "email": "ada@example.com",
            "name": "Ada",
            "order": {"id": 1, "total": 49.9},
            "cart_id": "c",
        },
        {"name": None, "order": None, "cart_id": None, "items": None, "user": None},
        {"order": {"items": [{"name": "Lamp", "quantity": "3", "price": 5}, {}, None, "x"]}},
    ],
)
def test_demo_template_renders_whatever_is_missing(directory: Path, data: dict[str, Any]) -> None:
    parts = {path.stem: path.read_text() for path in directory.iterdir()}
    html = (directory / "body.html").read_text()
    text = (directory / "body.txt").read_text()
    mail = rendered(html, data, subject=parts["subject"], preheader=parts["preheader"], text=text)
    assert "{{" not in mail.subject + mail.html + mail.text
    assert "\n\n\n" not in mail.text
    assert len(mail.html.encode()) < 12_000

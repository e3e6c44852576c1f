"""What a preview shows of a mail."""

import pytest

from content.webmail import as_webmail
from tests.patience import cpu_limit


@pytest.mark.parametrize(
    ("html", "shown"),
    [
        ("<p>Hello</p>", "<p>Hello</p>"),
        ("<style>p { color: red }</style><p>a</p>", "<style>p { color: red }</style><p>a</p>"),
        ("<title>mail</title><p>a</p>", "<p>a</p>"),
        ("<script>alert(1)</script>b", "b"),
        (
            "<STYLE media='a'>b{}</Style ><style>c{}</style>d",
            "<style>b{}</style><style>c{}</style>d",
        ),
        ("<style></style><script>x</script></style>c", "<style></style>c"),
        (
            '<a href="https://example.com" onclick="x()">d</a>',
            '<a href="https://example.com">d</a>',
        ),
        ('<a href="javascript:x()">e</a>', "<a>e</a>"),
        ('<img src="x" onerror="x()">', '<img src="x">'),
        ("<form action='/x'><input name='y'>f</form>", "f"),
        ("<iframe src='https://example.com'></iframe>g", "g"),
        ('<td style="padding: 4px; position: fixed">h</td>', "h"),
        ("<!-- <script>x</script> -->i", "i"),
    ],
)
def test_only_what_a_webmail_client_shows_is_left(html: str, shown: str) -> None:
    assert as_webmail(html) == shown


def test_style_keeps_what_lays_a_mail_out() -> None:
    html = '<table role="presentation" style="width: 100%; position: fixed"></table>'
    assert 'style="width: 100%;"' in as_webmail(html)


@pytest.mark.parametrize("begun", ["<style>", "<style></style"])
def test_style_sheets_without_an_end_take_linear_time(begun: str) -> None:
    with cpu_limit():
        as_webmail(begun * 60_000)

"""Where a link may be sent on to (S04)."""

from typing import Any

import pytest

from delivery.destinations import destination, location

ALLOWED = [
    "https://shop.example/",
    "http://shop.example",
    "HTTPS://Shop.Example/A?b=c&d=%20e#f",
    "https://shop.example:8443/a@b?c=//d\u00e9",
    "https://shop.example?next=https://evil.example/",
    "https://[2001:db8::1]:8443/x",
    "https://127.0.0.1:9/x",
    "https://shop.example/a'b(c)*;d,e~f",
]

REFUSED = [
    *("", "#", "#top", "/cart", "cart", "?url=https://evil.example", "//evil.example/"),
    *(
        "\\evil",
        "\\\\evil.example",
        "/\\evil.example",
        "https:\\\\evil.example",
        "https:/evil.example",
    ),
    *("https:evil.example", "https:///evil.example", "https://", "https://?a", "https://#a"),
    *("javascript:alert(1)", "JaVaScRiPt:alert(1)", "java\tscript:alert(1)", "\x01javascript:x"),
    *("data:text/html,x", "vbscript:x", "file:///etc/passwd", "ftp://a.example", "blob:https://a"),
    *(
        "mailto:ada@example.com",
        "tel:+49123",
        "sms:1",
        "cid:image",
        "view-source:https://a.example",
    ),
    *("https://ada:secret@shop.example/", "https://shop.example@evil.example/", "https://@evil/"),
    *("https://shop.example\\@evil.example/", "https://shop.example\\.evil.example/"),
    *(
        "https://shop.example/\r\nSet-Cookie: a=b",
        "https://shop.example/\nx",
        "https://a.example/\x00",
    ),
    *("https://shop.example/a b", "https://shop.example/\u2028", "https://shop.example/\u0085"),
    *("https://shop.example/\ud800", "https://sh\u200bop.example/\u00a0"),
    *(
        "https://b\u00fccher.example/",
        "https://shop\uff0fevil.example/",
        "https://shop.example\u3002evil/",
    ),
    *(
        "https://shop%2eexample/",
        "https://shop.example:/",
        "https://shop.example:x/",
        "https://a:99999/",
    ),
    *("https://[::1", "https://a]b/", "https://{{ host }}/", "https://a.example/<b>"),
    "https://shop.example/" + "a" * 2_000,
]


@pytest.mark.parametrize("url", ALLOWED)
def test_plain_web_address_is_a_destination(url: str) -> None:
    assert destination(url) == url
    assert destination(f" \n{url}\t") == url
    assert location(url).isascii()


@pytest.mark.parametrize("url", REFUSED)
def test_anything_else_is_none(url: str) -> None:
    assert destination(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://mail.shop.example/u/token",
        "HTTPS://MAIL.shop.example:443/p/token",
        "http://mail.shop.example./v/token",
        "https://go.shop.example/t/c/token",
    ],
)
def test_page_of_our_own_is_none(url: str, settings: Any) -> None:
    settings.PUBLIC_URL = "https://mail.shop.example"
    settings.TRACKING_URL = "https://go.shop.example"
    assert destination(url) is None
    assert destination("https://shop.example/") == "https://shop.example/"


def test_location_is_what_a_browser_asks_for() -> None:
    assert location("https://a.example/é?q=ü&r=%C3%BC#ö") == (
        "https://a.example/%C3%A9?q=%C3%BC&r=%C3%BC#%C3%B6"
    )

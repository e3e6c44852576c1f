"""The pages in a real browser, against the real server: that they work, and for everybody."""

import os
import re
import shutil
from collections.abc import Iterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from campaigns import engine
from common.addresses import parse_address
from common.signing import sign_uuid
from contacts.models import Contact, Topic
from contacts.states import TopicPolicy
from delivery.engine import deliver_batch
from delivery.links import CONFIRM, PERSONAL_DATA, PREFERENCES, UNSUBSCRIBE
from delivery.models import Message, SandboxMail
from events.services import submit
from preferences.optin import Application, subscribe
from preferences.personal import Asked, Wanted, send_link
from tests.events.serving import serving
from tests.factories import CampaignFactory, MessageFactory, TopicFactory, event_in

CHROMIUM = shutil.which("chromium")
SIZES = {"phone": {"width": 320, "height": 640}, "desk": {"width": 1280, "height": 900}}

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


@pytest.fixture(autouse=True, scope="module")
def _orm_in_the_thread_of_playwright() -> Iterator[None]:
    """Playwright has an event loop in this thread, which Django takes for ours."""
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    yield
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture(scope="module")
def server(django_db_setup: None) -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def open_page(browser: Browser, url: str, **options: Any) -> Page:
    page = browser.new_context(**options).new_page()
    page.goto(url)
    return page


def process() -> None:
    while engine.drain(budget=10) or deliver_batch("marketing", limit=50):
        pass


def unsubscribe_path() -> str:
    """The link as it stands in the mail that was delivered last."""
    mail = message_from_bytes(bytes(SandboxMail.objects.first().raw), policy=policy.default)
    html = mail.get_body(("html",)).get_content()
    return re.search(r'href="https?://[^/"]+(/u/[^"]+)"', html)[1]


@pytest.mark.parametrize(
    ("button", "scope"), [("Unsubscribe from “News”", "topic:news"), ("from all", "marketing")]
)
def test_one_click_in_the_page_and_the_next_event_sends_nothing(
    server: str, browser: Browser, button: str, scope: str
) -> None:
    CampaignFactory()
    submit([event_in("e1", user_id="ada", payload={"email": "ada@example.com"})])
    process()
    assert SandboxMail.objects.count() == 1
    page = open_page(browser, server + unsubscribe_path())
    page.get_by_role("button", name=button).click()
    page.get_by_role("heading", name="You are unsubscribed").wait_for()
    assert page.context.cookies() == []
    submit([event_in("e2", user_id="ada", payload={"email": "ada@example.com"})])
    process()
    assert SandboxMail.objects.count() == 1
    second = Message.objects.get(origin_event_id="e2")
    reasons = {"consent_withdrawn", "suppressed"}
    assert second.state == "skipped"
    assert second.reason in reasons
    page.context.close()


def test_preferences_by_keyboard_alone(server: str, browser: Browser) -> None:
    message = sample()
    page = open_page(browser, url_of(server, message, PREFERENCES))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "topic"
    page.keyboard.press("Space")
    page.get_by_label("Marketing e‑mails in seven days").select_option("At most 2")
    page.get_by_label("Take a break").select_option("One month from now")
    page.get_by_role("button", name="Save").focus()
    page.keyboard.press("Enter")
    page.get_by_role("status").get_by_text("Saved.").wait_for()
    contact = Contact.objects.get()
    assert contact.weekly_limit == 2
    assert contact.paused_until is not None
    assert contact.subscriptions.get().state == "withdrawn"
    assert page.context.cookies() == []
    page.context.close()


def sample() -> Message:
    """Somebody with everything that can be seen."""
    TopicFactory(
        key="carts", name="Your cart", description="When you left something behind in the shop."
    )
    TopicFactory(key="tips", name="Tips & tricks", policy=TopicPolicy.OPT_IN)
    return MessageFactory(
        stream="marketing",
        topic=TopicFactory(key="news", name="News", description="New lamps, twice a month."),
        state="sent",
        sender__name="Lighthouse Goods",
        contact__email="ada@example.com",
    )


def url_of(server: str, message: Message, purpose: str) -> str:
    letter = {UNSUBSCRIBE: "u", PREFERENCES: "p", CONFIRM: "c", PERSONAL_DATA: "d"}[purpose]
    return f"{server}/{letter}/{sign_uuid(purpose, message.pk)}"


def pages_to_see(server: str, message: Message) -> Iterator[tuple[str, str, str]]:
    """(name, URL, name of the button to press there first)"""
    unsubscribe = url_of(server, message, UNSUBSCRIBE)
    preferences = url_of(server, message, PREFERENCES)
    subscribe(Application(parse_address("ada@example.com"), "", long_topic(), "form"))
    confirm = url_of(server, Message.objects.get(context__action=CONFIRM), CONFIRM)
    copy, erase = (data_url(server, message, wanted) for wanted in (Wanted.EXPORT, Wanted.ERASE))
    yield "confirm", confirm, ""
    yield "confirmed", confirm, "button"
    yield "unsubscribe", unsubscribe, ""
    yield "unknown", f"{server}/u/nonsense", ""
    yield "preferences", preferences, ""
    yield "saved", preferences, "[name=form] ~ button"
    yield "stopped", preferences, "[name=stop]"
    yield "asked", preferences, "[value=export]"
    yield "copy", copy, ""
    yield "personal_copy", copy, "[value=html]"
    yield "dead_link", f"{server}/t/c/nonsense", ""
    yield "done_topic", unsubscribe, "[value=topic]"
    yield "done_all", unsubscribe, "[value=all]"
    yield "closed", confirm, ""
    yield "erase", erase, ""
    yield "erased", erase, "button"


def long_topic() -> Topic:
    """As wide as can be, of one word."""
    return TopicFactory(key="long", name="Wunderwerk" * 10, double_opt_in=True)


def data_url(server: str, message: Message, wanted: Wanted) -> str:
    assert send_link(message.contact, wanted) is Asked.SENT
    mail = Message.objects.get(context__about__what=wanted.value)
    return url_of(server, mail, PERSONAL_DATA)


@pytest.mark.parametrize(
    ("size", "scheme", "language"), [("phone", "dark", "de"), ("desk", "light", "en")]
)
def test_every_page_is_accessible(
    server: str, browser: Browser, size: str, scheme: str, language: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    message = sample()
    for name, url, button in pages_to_see(server, message):
        page = open_page(browser, url, viewport=SIZES[size], color_scheme=scheme, locale=language)
        if button:
            page.locator(button).first.click()
        found = axe.run(page, options={"runOnly": {"type": "tag", "values": RULES}})
        keep_picture(page, f"{name}-{size}-{scheme}-{language}")
        assert found.violations_count == 0, f"{name}: {found.generate_report()}"
        assert page.evaluate(SIDEWAYS) <= 0, f"{name} scrolls sideways"
        assert page.evaluate(SMALL_TARGETS) == [], name
        assert page.evaluate(NARROW) == [], name
        page.context.close()


RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
SMALL_TARGETS = """
    [...document.querySelectorAll("a, button, select, input:not([type=hidden])")]
        .map(e => [e.outerHTML, e.getBoundingClientRect()])
        .filter(([, box]) => box.width < 24 || box.height < 24).map(([html]) => html)
"""
"""WCAG 2.2, 2.5.8: 24 by 24 CSS pixels."""
NARROW = """
    [...document.querySelectorAll("dd")]
        .filter(e => e.clientWidth < 200).map(e => e.previousElementSibling.textContent)
"""
"""What is read one syllable to a line."""


def keep_picture(page: Page, name: str) -> None:
    """Into the directory that EMAILAUTO_PICTURES names, for people who want to look."""
    if directory := os.environ.get("EMAILAUTO_PICTURES"):
        page.screenshot(path=Path(directory) / f"{name}.png", full_page=True)

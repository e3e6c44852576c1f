"""Whether a person opened or clicked, or a program did (R19)."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from delivery.states import Actor
from webhooks.actors import Seen, judge

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
LINKS = [UUID(int=number) for number in range(5)]

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/130.0.0.0 Safari/537.36"
)
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1"
)
OUTLOOK = (
    "Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0; WOW64; Trident/8.0; .NET4.0C; "
    "Microsoft Outlook 16.0.5134; ms-office; MSOffice 16)"
)
OFFICE = "Mozilla/4.0 (compatible; ms-office; MSOffice 16)"
THUNDERBIRD = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Thunderbird/128.4.0"
GMAIL = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
YAHOO = "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html"
CUBOT = (
    "Mozilla/5.0 (Linux; Android 11; CUBOT NOTE 20) AppleWebKit/537.36 Chrome/130.0 Mobile "
    "Safari/537.36"
)


def click(seconds: float = 0, link: int = 0, agent: str = CHROME, **fields: bool) -> Seen:
    at = NOON + timedelta(seconds=seconds)
    return Seen(at, LINKS[link], agent.encode(), agent, **fields)


def opened(seconds: float = 0, agent: str = CHROME, **fields: bool) -> Seen:
    at = NOON + timedelta(seconds=seconds)
    return Seen(at, None, agent.encode(), agent, **fields)


def actor(visit: Seen, *others: Seen, after: float = 3600) -> Actor:
    return judge(visit, [visit, *others], NOON - timedelta(seconds=after)).actor


@pytest.mark.parametrize("agent", [CHROME, IPHONE, CUBOT])
def test_person_with_a_browser_is_a_person(agent: str) -> None:
    assert actor(click(agent=agent)) == Actor.PERSON
    assert actor(opened(agent=agent)) == Actor.PERSON


@pytest.mark.parametrize(
    "agent", [OUTLOOK, OFFICE, THUNDERBIRD, "MacOutlook/16.89.24090815", "Lotus-Notes/6.0"]
)
def test_mail_program_opens_but_does_not_click(agent: str) -> None:
    assert actor(opened(agent=agent)) == Actor.PERSON
    assert actor(click(agent=agent)) == Actor.MACHINE


@pytest.mark.parametrize("agent", [GMAIL, YAHOO, "Mozilla/5.0", " Mozilla/5.0 "])
def test_picture_loaded_through_a_proxy_is_told_apart(agent: str) -> None:
    assert actor(opened(agent=agent)) == Actor.PROXY
    assert actor(click(agent=agent)) == Actor.MACHINE


@pytest.mark.parametrize(
    "agent",
    [
        "",
        "  ",
        "curl/8.5.0",
        "Wget/1.21",
        "python-requests/2.32.3",
        "Python-urllib/3.11",
        "Go-http-client/2.0",
        "Java/17.0.2",
        "okhttp/4.12.0",
        "Apache-HttpClient/4.5 (Java/1.8)",
        "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
        "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
        "WhatsApp/2.23.20.0",
        "TelegramBot (like TwitterBot)",
        "Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5",
        "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/534+ (KHTML, like Gecko) BingPreview/1.0b",
        "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
        "Mozilla/5.0 (compatible; Barracuda Sentinel)",
        "Mozilla/5.0 (compatible; Proofpoint URL Defense)",
        "Mozilla/5.0 (Mimecast URL Protect)",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 HeadlessChrome/120.0 Safari/537.36",
        "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)",
    ],
)
def test_program_that_says_so_is_a_machine(agent: str) -> None:
    assert actor(click(agent=agent)) == Actor.MACHINE


@pytest.mark.parametrize("fields", [{"is_head": True}, {"is_prefetch": True}])
def test_request_no_person_makes_is_a_machines(fields: dict[str, bool]) -> None:
    assert actor(click(**fields)) == Actor.MACHINE
    assert actor(opened(**fields)) == Actor.MACHINE


@pytest.mark.parametrize(("after", "expected"), [(9.9, Actor.MACHINE), (10, Actor.PERSON)])
def test_visit_right_after_the_hand_over_is_a_machines(after: float, expected: Actor) -> None:
    assert actor(click(), after=after) == expected
    assert actor(opened(), after=after) == expected


def test_message_without_a_hand_over_is_no_reason() -> None:
    assert judge(click(), [click()], None).actor == Actor.PERSON


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 1, 2], Actor.MACHINE),
        ([0, 0, 0], Actor.MACHINE),
        ([0, 1, 2.1], Actor.PERSON),
        ([0, 30, 60], Actor.PERSON),
    ],
)
def test_three_links_in_two_seconds_are_a_machines(times: list[float], expected: Actor) -> None:
    # Each by another name, so that only the span decides.
    clicks = [click(at, link, f"{CHROME} {link}") for link, at in enumerate(times)]
    assert {actor(one, *clicks) for one in clicks} == {expected}


def test_one_link_clicked_again_and_again_is_a_persons() -> None:
    clicks = [click(at, 0) for at in (0, 0.5, 1, 1.5)]
    assert {actor(one, *clicks) for one in clicks} == {Actor.PERSON}


def test_open_in_a_burst_of_another_program_is_a_persons() -> None:
    burst = [click(0, link, "Mozilla/5.0 (Scan)") for link in range(3)]
    assert actor(opened(1), *burst) == Actor.PERSON


def test_program_that_gave_itself_away_is_not_a_person_seconds_later() -> None:
    assert actor(click(5), click(0, is_head=True)) == Actor.MACHINE
    assert actor(click(5), click(9, is_head=True)) == Actor.MACHINE
    assert actor(click(5), *[click(0, link) for link in range(3)]) == Actor.MACHINE
    known = Seen(NOON, LINKS[1], CHROME.encode(), is_known_machine=True)
    assert actor(click(5), known) == Actor.MACHINE


def test_other_program_is_not_taken_for_it() -> None:
    assert actor(click(5, agent=IPHONE), click(0, is_head=True)) == Actor.PERSON
    assert actor(click(10.1), click(0, is_head=True)) == Actor.PERSON


def test_every_machine_has_a_reason_that_fits_its_column() -> None:
    for visit in (click(agent="curl/8"), click(is_head=True), opened(agent=GMAIL)):
        assert 0 < len(judge(visit, [visit], None).reason) <= 60

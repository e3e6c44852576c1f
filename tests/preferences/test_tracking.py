"""`/t/c/<token>` and `/t/o/<token>.gif`, up to what is counted (S04, S20, R19)."""

import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from functools import partial
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.db import DataError, InterfaceError, OperationalError, connection
from django.db.models import F
from django.db.models.functions import Now
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext

from contacts.models import Consent
from delivery.engine import deliver_batch
from delivery.link_store import store_links
from delivery.models import Link, Message, SandboxMail, Visit
from delivery.states import Actor
from delivery.tracking import click_url, link_id, open_url
from delivery.visits import Request, record_visit
from emailauto.sweep import sweep
from preferences import tracking
from preferences.tracking import _PIXEL
from suppression.models import Suppression
from tests.events.serving import serving
from tests.factories import MessageFactory, TemplateFactory, TopicFactory
from tests.webhooks.test_actors import CHROME, GMAIL, IPHONE
from webhooks.services import drain
from webhooks.visits import judge_visits

pytestmark = pytest.mark.django_db

ALPHABET = string.ascii_letters + string.digits + "-_"
URL = "https://shop.example/ç?a=1&b=2#c"


@pytest.fixture
def message() -> Message:
    store_links({link_id(URL): URL})
    return tracked_message()


def tracked_message(**fields: Any) -> Message:
    return MessageFactory(
        **{"stream": "marketing", "state": "sent", "is_tracked": True, **fields},
        topic=TopicFactory(),
        contact__may_track=True,
        handed_over_at=Now() - timedelta(hours=1),
    )


def path_of(url: str) -> str:
    return url.removeprefix(settings.TRACKING_URL)


def click(message: Message, url: str = URL, *, agent: str = CHROME, **headers: str) -> HttpResponse:
    path = path_of(click_url(message.pk, link_id(url)))
    return Client(enforce_csrf_checks=True).get(path, headers={"User-Agent": agent, **headers})


def look(message: Message, *, agent: str = CHROME) -> HttpResponse:
    return Client().get(path_of(open_url(message.pk)), headers={"User-Agent": agent})


def judged() -> list[tuple[str, str]]:
    """After their time: kind and actor of every visit."""
    Visit.objects.filter(actor="").update(due_at=Now() - timedelta(seconds=1))
    while judge_visits():
        pass
    visits = Visit.objects.order_by("pk")
    return [("click" if v.link_id else "open", v.actor) for v in visits]


def counted(message: Message) -> tuple[bool, bool, bool]:
    message.refresh_from_db()
    engaged = message.contact.engaged_at
    return message.opened_at is not None, message.clicked_at is not None, engaged is not None


def assert_private(response: HttpResponse) -> None:
    assert response["Referrer-Policy"] == "no-referrer"
    assert response["Cache-Control"] == "no-store"
    assert response["X-Robots-Tag"] == "noindex, nofollow"
    assert "default-src 'none'" in response["Content-Security-Policy"]
    assert not response.cookies
    assert "Cookie" not in response.get("Vary", "")


def test_click_leads_on_and_counts(message: Message) -> None:
    response = click(message)
    assert response.status_code == 302
    assert response["Location"] == "https://shop.example/%C3%A7?a=1&b=2#c"
    assert response.content == b""
    assert_private(response)
    assert judged() == [("click", "person")]
    assert counted(message) == (False, True, True)
    assert not Consent.objects.exists()
    assert not Suppression.objects.exists()


def test_open_shows_a_picture_and_counts(message: Message) -> None:
    response = look(message)
    assert (response.status_code, response["Content-Type"]) == (200, "image/gif")
    assert (len(response.content), response.content[:6]) == (43, b"GIF89a")
    assert_private(response)
    assert judged() == [("open", "person")]
    assert counted(message) == (True, False, True)


def test_visit_is_judged_no_sooner_than_it_has_settled(message: Message) -> None:
    click(message)
    drain(budget=1)
    assert Visit.objects.get().actor == ""
    assert "feedback" not in sweep()
    Visit.objects.update(due_at=Now())
    assert "feedback" in sweep()
    drain(budget=1)
    assert Visit.objects.get().actor == "person"


def test_what_the_request_said_of_itself_is_not_kept(message: Message) -> None:
    click(message)
    assert Visit.objects.get().user_agent == CHROME
    judged()
    assert Visit.objects.get().user_agent == ""


def test_token_of_a_click_with_any_character_changed_is_not_found(message: Message) -> None:
    path = path_of(click_url(message.pk, link_id(URL)))
    token = path.removeprefix("/t/c/")
    for position, character in enumerate(token):
        other = ALPHABET[(ALPHABET.index(character) + 1) % len(ALPHABET)]
        response = Client().get(f"/t/c/{token[:position]}{other}{token[position + 1 :]}")
        assert response.status_code == 404
        assert "Location" not in response
        assert_private(response)
    assert not Visit.objects.exists()


@pytest.mark.parametrize(
    "token",
    [
        *("x", "https://evil.example", "//evil.example", "javascript:alert(1)", "\\evil", "%00"),
        *("?url=https://evil.example", "token?url=https://evil.example/&next=//evil.example"),
    ],
)
def test_made_up_token_leads_nowhere(token: str) -> None:
    response = Client().get(f"/t/c/{token}")
    assert response.status_code in (404, 301)
    assert "evil" not in response.get("Location", "").partition("/t/c/")[0]


def test_query_of_a_click_changes_nothing(message: Message) -> None:
    path = path_of(click_url(message.pk, link_id(URL)))
    response = Client().get(path + "?url=https://evil.example/&next=//evil.example")
    assert response["Location"].startswith("https://shop.example/")


def test_token_of_one_kind_is_none_of_another(message: Message) -> None:
    opened = path_of(open_url(message.pk)).removeprefix("/t/o/").removesuffix(".gif")
    assert Client().get(f"/t/c/{opened}").status_code == 404
    clicked = path_of(click_url(message.pk, link_id(URL))).removeprefix("/t/c/")
    assert Client().get(f"/t/o/{clicked}.gif").content == _PIXEL
    assert not Visit.objects.exists()


@pytest.mark.parametrize("token", ["x", "A" * 43, "A" * 500, "\u00e9"])
def test_pixel_is_the_same_for_any_token(message: Message, token: str) -> None:
    valid, other = look(message), Client().get(f"/t/o/{token}.gif")
    assert (valid.status_code, valid.content) == (other.status_code, other.content)
    assert dict(valid.items()) == dict(other.items())


@pytest.mark.parametrize("path", ["/t/c/x", "/t/o/x.gif"])
@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_other_methods_are_refused(path: str, method: str) -> None:
    response = getattr(Client(enforce_csrf_checks=True), method)(path)
    assert response.status_code == 405


@pytest.mark.parametrize("error", [OperationalError, InterfaceError, DataError])
def test_visit_that_cannot_be_kept_stops_nobody(
    message: Message, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*args: object, **options: object) -> bool:
        raise error("the connection is lost")

    monkeypatch.setattr(tracking, "record_visit", fail)
    assert click(message).status_code == 302
    assert look(message).status_code == 200


@pytest.mark.parametrize(
    ("accepted", "language", "words"), [("de", "de", "Dieser Link"), ("", "en", "This link")]
)
def test_page_of_a_dead_link_speaks_the_browsers_language(
    accepted: str, language: str, words: str
) -> None:
    response = Client().get("/t/c/x", headers={"accept-language": accepted})
    html = response.content.decode()
    assert f'<html lang="{language}" dir="ltr">' in html
    assert f"<h1>{words}" in html
    assert response["Content-Language"] == language


def test_old_tokens_work_after_the_key_was_rotated(message: Message, settings: Any) -> None:
    clicked, opened = click_url(message.pk, link_id(URL)), open_url(message.pk)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another key that is long enough to be one"
    assert Client().get(path_of(clicked)).status_code == 302
    Client().get(path_of(opened))
    assert Visit.objects.count() == 2
    settings.SECRET_KEY_FALLBACKS = []
    assert Client().get(path_of(clicked)).status_code == 404


def test_link_that_is_not_kept_any_more_is_not_found(message: Message) -> None:
    Link.objects.all().delete()
    assert click(message).status_code == 404


def test_after_a_withdrawal_links_still_lead_on_and_nothing_is_recorded(message: Message) -> None:
    message.contact.may_track = False
    message.contact.save()
    assert click(message).status_code == 302
    assert look(message).content == _PIXEL
    assert not Visit.objects.exists()


def test_message_that_did_not_leave_tracked_records_nothing(message: Message) -> None:
    Message.objects.update(is_tracked=False)
    click(message)
    look(message)
    assert not Visit.objects.exists()


def test_link_of_a_message_that_is_gone_still_leads_on(message: Message) -> None:
    path = path_of(click_url(message.pk, link_id(URL)))
    message.delete()
    assert Client().get(path).status_code == 302
    assert not Visit.objects.exists()


@pytest.mark.parametrize(
    ("agent", "expected"),
    [(GMAIL, Actor.PROXY), ("Mozilla/5.0", Actor.PROXY), ("curl/8", Actor.MACHINE)],
)
def test_open_by_anything_but_a_person_is_shown_and_does_not_count(
    message: Message, agent: str, expected: Actor
) -> None:
    look(message, agent=agent)
    assert judged() == [("open", expected)]
    assert counted(message) == (False, False, False)


@pytest.mark.parametrize(
    "headers",
    [
        {"Purpose": "prefetch"},
        {"Sec-Purpose": "prefetch;prerender"},
        {"X-Moz": "prefetch"},
        {"X-Purpose": "preview"},
    ],
)
def test_prefetched_click_does_not_count(message: Message, headers: dict[str, str]) -> None:
    assert click(message, **headers).status_code == 302
    assert judged() == [("click", "machine")]
    assert counted(message) == (False, False, False)


def test_same_visit_is_kept_once_in_ten_seconds(message: Message) -> None:
    noon = datetime(2026, 11, 22, 12, tzinfo=UTC)
    request = Request(CHROME, is_head=False, is_prefetch=False)
    kept = [
        record_visit(message.pk, None, request, at=noon + timedelta(seconds=second))
        for second in (0, 0, 9, 10, 19, 20)
    ]
    assert kept == [True, False, False, True, False, True]
    assert record_visit(message.pk, link_id(URL), request, at=noon)


def test_same_visit_by_another_program_is_another(message: Message) -> None:
    click(message)
    click(message, agent=IPHONE)
    assert Visit.objects.filter(user_agent=IPHONE).count() == 1


def test_visits_of_a_message_are_bounded_and_opens_leave_room_for_clicks(message: Message) -> None:
    for number in range(105):
        look(message, agent=f"{CHROME} {number}")
    click(message)
    assert Visit.objects.filter(link=None).count() == 100
    assert Visit.objects.exclude(link=None).count() == 1


@pytest.mark.parametrize("agent", ["\u00e9" * 500, "a\tb", "x" * 5_000, ""])
def test_any_user_agent_is_taken(message: Message, agent: str) -> None:
    look(message, agent=agent)
    assert Visit.objects.count() == 1


def test_visit_takes_two_statements_and_an_open_one(message: Message) -> None:
    with CaptureQueriesContext(connection) as queries:
        click(message)
    assert len(queries) == 2
    with CaptureQueriesContext(connection) as queries:
        look(message)
    assert len(queries) == 1


def test_number_of_queries_of_a_judgement_is_the_same_for_1_and_50() -> None:
    store_links({link_id(URL): URL})
    counts = []
    for size in (1, 50):
        for _ in range(size):
            click(tracked_message())
        Visit.objects.filter(actor="").update(due_at=Now())
        with CaptureQueriesContext(connection) as queries:
            judge_visits()
        counts.append(len(queries))
    assert counts[0] == counts[1]
    assert Visit.objects.filter(actor="person").count() == 51


def test_judging_again_changes_nothing(message: Message) -> None:
    click(message)
    before = judged(), counted(message), message.clicked_at
    Visit.objects.update(due_at=Now())
    assert (judged(), counted(message), message.clicked_at) == before


def test_doubt_about_a_message_ends_when_a_person_opens_it(message: Message) -> None:
    Message.objects.update(state="unknown", reason="outcome_unknown", sent_at=None)
    look(message)
    judged()
    message.refresh_from_db()
    assert message.state == "sent"


@contextmanager
def database_away() -> Iterator[None]:
    port = connection.settings_dict["PORT"]
    connection.close()
    connection.settings_dict["PORT"] = "1"
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict["PORT"] = port


@pytest.mark.django_db(transaction=True)
def test_click_while_the_database_is_away_asks_to_come_again(message: Message) -> None:
    with database_away():
        response = click(message)
    assert (response.status_code, response["Retry-After"]) == (503, "60")
    assert_private(response)


@pytest.mark.django_db(transaction=True)
def test_pixel_while_the_database_is_away_is_the_same(message: Message) -> None:
    with database_away():
        response = look(message)
    assert (response.status_code, response.content) == (200, _PIXEL)


# --- Over HTTP, with the real server ------------------------------------------------------


def links_of_a_mail(count: int) -> tuple[Message, list[str]]:
    """A mail on its way from template to sandbox, and the paths of its tracked links."""
    html = "".join(f'<a href="https://shop.example/{n}">x</a>' for n in range(count))
    message = MessageFactory(
        stream="marketing",
        topic=TopicFactory(),
        contact__may_track=True,
        template_version=TemplateFactory(version__html=html).published,
    )
    deliver_batch("marketing", limit=1)
    mail = message_from_bytes(bytes(SandboxMail.objects.get().raw))
    (part,) = (part for part in mail.walk() if part.get_content_type() == "text/html")
    return message, re.findall(r"/t/c/[\w-]{64}", part.get_payload(decode=True).decode())


def an_hour_passes() -> None:
    hour = timedelta(hours=1)
    Visit.objects.update(at=F("at") - hour, due_at=F("due_at") - hour)
    Message.objects.update(handed_over_at=F("handed_over_at") - hour)
    for visit in Visit.objects.all():  # as it would have been an hour ago
        Visit.objects.filter(pk=visit.pk).update(fingerprint=str(visit.pk).encode())


@pytest.mark.django_db(transaction=True)
def test_scanner_follows_every_link_and_only_the_persons_click_counts() -> None:
    message, paths = links_of_a_mail(4)
    assert len(set(paths)) == 4
    an_hour_passes()  # between the hand-over and the scan, so that its time does not give it away
    headers = {"User-Agent": CHROME}
    with serving() as url, httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        for path in paths:
            assert client.get(path).status_code == 302
        heads = [client.head(path) for path in paths]
        assert {head.headers["Location"] for head in heads} == {
            f"https://shop.example/{n}" for n in range(4)
        }
        an_hour_passes()
        assert client.get(paths[2]).headers["Location"] == "https://shop.example/2"
    assert Counter(judged()) == {("click", "machine"): 8, ("click", "person"): 1}
    assert counted(message) == (False, True, True)
    message.refresh_from_db()
    assert message.clicked_at == Visit.objects.get(actor="person").at


@pytest.mark.django_db(transaction=True)
def test_thousand_opens_at_once_are_all_answered_and_all_kept() -> None:
    messages = [tracked_message() for _ in range(20)]
    visits = [(path_of(open_url(m.pk)), f"{CHROME} {n}") for n in range(50) for m in messages]

    def look_at_some(base: str, part: Sequence[tuple[str, str]]) -> list[tuple[int, bytes]]:
        with httpx.Client(base_url=base, timeout=None) as client:
            answers = [client.get(path, headers={"User-Agent": agent}) for path, agent in part]
            return [(answer.status_code, answer.content) for answer in answers]

    with serving() as url, ThreadPoolExecutor(50) as pool:
        parts = [visits[n::50] for n in range(50)]
        answers = [a for part in pool.map(partial(look_at_some, url), parts) for a in part]
    assert Counter(answers) == {(200, _PIXEL): 1_000}
    assert Counter(judged()) == {("open", "person"): 1_000}
    assert all(counted(message) == (True, False, True) for message in messages)

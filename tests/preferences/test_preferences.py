"""`/p/<token>`: what a person can say on their page, and what comes of it."""

import re
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from common.addresses import address_hash, parse_address
from common.clock import now
from contacts.models import Consent, Contact, Subscription, Topic
from contacts.services import record_consent
from contacts.states import ConsentState, Purpose, TopicPolicy
from delivery.links import PREFERENCES, UNSUBSCRIBE
from delivery.models import Message
from suppression.models import Suppression
from suppression.services import SuppressionRequest, suppress_addresses
from suppression.states import SuppressionReason
from tests.factories import MessageFactory, TopicFactory
from tests.preferences.pages import assert_private, filled_in, get, path_of, post, strict_client

pytestmark = pytest.mark.django_db

EVERYTHING = ["carts", "news", "tips"]


@pytest.fixture
def message() -> Message:
    """Ada's mail; she may be mailed about news and her cart, and has not asked for tips."""
    TopicFactory(key="carts", name="Your cart")
    TopicFactory(key="tips", name="Tips", policy=TopicPolicy.OPT_IN, description="On Sundays.")
    return MessageFactory(
        stream="marketing",
        topic=TopicFactory(key="news", name="News"),
        state="sent",
        contact__email="ada@example.com",
    )


def say(message: Message, topics: list[str], **more: Any) -> Any:
    headers = more.pop("headers", {})
    data = {"form": "preferences", "topic": topics, **more}
    response = post(message, PREFERENCES, data, headers=headers)
    assert_private(response)
    return response


def ticked(message: Message) -> list[str]:
    html = get(message, PREFERENCES).content.decode()
    return [key for key in EVERYTHING if f'value="{key}" checked' in html]


def suppressions() -> set[tuple[str, str]]:
    return set(Suppression.objects.values_list("scope", "reason"))


def ledger() -> list[tuple[str | None, str]]:
    return list(Consent.objects.order_by("pk").values_list("topic__key", "state"))


def suppress(scope: str, reason: SuppressionReason) -> None:
    address = parse_address("ada@example.com")
    suppress_addresses([SuppressionRequest(address, scope, reason, "test")])


def test_page_shows_what_is_on(message: Message) -> None:
    assert ticked(message) == ["carts", "news"]
    html = get(message, PREFERENCES).content.decode()
    assert "a***@e***" in html
    assert "ada@example.com" not in html
    assert "On Sundays." in html
    assert "<script" not in html


def test_saving_what_is_shown_changes_nothing(message: Message) -> None:
    assert say(message, ["carts", "news"]).status_code == 200
    assert ledger() == []
    assert suppressions() == set()


@pytest.mark.parametrize(
    "known",
    [
        {"locale": "de-AT"},
        {"locale": "tlh"},
        {"weekly_limit": 0},
        {"weekly_limit": 4},
        {"weekly_limit": 1000},
    ],
)
def test_pressing_save_keeps_what_the_page_does_not_offer(
    message: Message, known: dict[str, Any]
) -> None:
    Contact.objects.update(**known)
    response = post(message, PREFERENCES, filled_in(get(message, PREFERENCES)))
    assert response.status_code == 200
    assert Contact.objects.filter(**known).exists()


def test_language_of_a_country_is_named(message: Message) -> None:
    Contact.objects.update(locale="de-AT")
    html = get(message, PREFERENCES).content.decode()
    assert re.search(r'value="de-AT"[^>]* selected>Deutsch \(de-AT\)<', html)


def test_form_that_cannot_be_read_says_so(message: Message) -> None:
    html = post(message, PREFERENCES, {"form": "nonsense"}).content.decode()
    assert 'role="alert"' in html
    assert "Nothing was changed." in html
    assert 'role="alert"' not in get(message, PREFERENCES).content.decode()


@pytest.mark.parametrize(
    ("data", "title"),
    [
        ({"form": "preferences", "topic": ["news"]}, "Saved. Your"),
        ({"stop": "all"}, "Unsubscribed. Your"),
        ({"form": "nonsense"}, "We could not read that. Your"),
    ],
)
def test_title_says_what_came_of_it(message: Message, data: dict[str, Any], title: str) -> None:
    assert f"<title>{title}" in post(message, PREFERENCES, data).content.decode()


def test_names_of_topics_cannot_turn_the_sentence_around(message: Message) -> None:
    name = "\u202eswen"
    Topic.objects.filter(key="news").update(name=name, description="<b>\u202e</b>")
    for purpose in (PREFERENCES, UNSUBSCRIBE):
        html = get(message, purpose).content.decode()
        assert f"<bdi>{name}</bdi>" in html
        assert "<bdi>&lt;b&gt;\u202e&lt;/b&gt;</bdi>" in html
        assert re.sub(r"<bdi>.*?</bdi>", "", html).count("\u202e") == 0


def test_pressing_save_without_a_change_changes_nothing(message: Message) -> None:
    Contact.objects.update(may_track=True, do_not_share=True, weekly_limit=3, locale="de")
    before = settings_of(Contact.objects.get())
    post(message, PREFERENCES, filled_in(get(message, PREFERENCES)))
    assert settings_of(Contact.objects.get()) == before
    assert ledger() == []


def test_topic_they_have_not_seen_is_not_decided_about(message: Message) -> None:
    form = filled_in(get(message, PREFERENCES))
    TopicFactory(key="later", name="Later", policy=TopicPolicy.OPT_OUT)
    TopicFactory(key="more", name="More", policy=TopicPolicy.OPT_IN)
    form["topic"] = ["news", "more"]
    post(message, PREFERENCES, form)
    assert ledger() == [("carts", "withdrawn")]


def test_topic_they_have_not_seen_stays_off_when_another_is_ticked_after_everything_was_off(
    message: Message,
) -> None:
    post(message, PREFERENCES, {"stop": "all"})
    form = filled_in(get(message, PREFERENCES))
    TopicFactory(key="later", name="Later", policy=TopicPolicy.OPT_OUT)
    post(message, PREFERENCES, form | {"topic": ["news"]})
    states = dict(Subscription.objects.values_list("topic__key", "state"))
    assert states == {"news": "granted", "carts": "withdrawn", "later": "withdrawn"}


def test_page_that_was_open_all_along_turns_nothing_on_again(message: Message) -> None:
    Contact.objects.update(may_track=True)
    form = filled_in(get(message, PREFERENCES))
    post(message, PREFERENCES, {"stop": "all"})
    post(message, PREFERENCES, form)
    assert ticked(message) == []
    contact = Contact.objects.get()
    assert (contact.may_track, contact.objected_at is None) == (False, False)


def test_unticking_withdraws_and_suppresses_that_topic_alone(message: Message) -> None:
    say(message, ["carts"])
    assert ledger() == [("news", "withdrawn")]
    assert suppressions() == {("topic:news", "unsubscribe")}
    assert ticked(message) == ["carts"]
    message.refresh_from_db()
    assert message.unsubscribed_at is not None


def test_unticking_another_topic_is_not_held_against_the_mail(message: Message) -> None:
    say(message, ["news"])
    assert suppressions() == {("topic:carts", "unsubscribe")}
    message.refresh_from_db()
    assert message.unsubscribed_at is None


def test_ticking_again_is_new_consent_and_lifts_the_own_unsubscribe(message: Message) -> None:
    say(message, ["carts"])
    say(message, ["carts", "news"])
    assert ledger() == [("news", "withdrawn"), ("news", "granted")]
    assert suppressions() == set()
    assert ticked(message) == ["carts", "news"]


def test_ticking_one_topic_after_everything_was_off_brings_back_no_other(message: Message) -> None:
    record_consent(message.contact, TopicFactory(key="tips"), ConsentState.GRANTED, source="form")
    assert "unsubscribed from all" in post(message, PREFERENCES, {"stop": "all"}).content.decode()
    assert ticked(message) == []
    assert suppressions() == {("marketing", "unsubscribe")}
    assert ledger() == [
        ("tips", "granted"),
        ("news", "withdrawn"),
        (None, "withdrawn"),
        ("tips", "withdrawn"),
    ]
    say(message, ["news"])
    assert ticked(message) == ["news"]
    assert suppressions() == {("topic:carts", "unsubscribe")}
    assert dict(Subscription.objects.values_list("topic__key", "state")) == {
        "news": "granted",
        "carts": "withdrawn",
        "tips": "withdrawn",
    }


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (SuppressionReason.COMPLAINT, "reported as spam"),
        (SuppressionReason.HARD_BOUNCE, "undeliverable"),
        (SuppressionReason.MANUAL, "list of those we do not write to"),
        (SuppressionReason.ERASURE, "erase your data"),
    ],
)
@pytest.mark.parametrize("scope", ["all", "marketing"])
def test_what_others_said_stays_and_the_page_says_so(
    message: Message, reason: SuppressionReason, words: str, scope: str
) -> None:
    suppress(scope, reason)
    say(message, ["carts"])
    html = say(message, EVERYTHING).content.decode()
    assert suppressions() == {(scope, reason.value)}
    assert "We send you no marketing" in html
    assert words in html


def test_block_of_one_topic_is_named_at_that_topic(message: Message) -> None:
    suppress("topic:carts", SuppressionReason.MANUAL)
    html = say(message, EVERYTHING).content.decode()
    assert "We send you no marketing" not in html
    assert html.count("Stopped:") == 1
    assert suppressions() == {("topic:carts", "manual")}


def test_consent_is_proven_by_mail_page_words_and_language(message: Message) -> None:
    say(message, EVERYTHING, headers={"accept-language": "de"})
    line = Consent.objects.get()
    assert (line.topic.key, line.state, line.source) == ("tips", "granted", "preferences page")
    assert f"message {message.pk}; page preferences in de, wording " in line.evidence
    assert line.evidence.endswith("“Tips: On Sundays.”")
    assert "IP" not in line.evidence


def test_address_of_the_browser_is_recorded_where_that_is_wanted(
    message: Message, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    pages = msgspec.structs.replace(settings.EMAILAUTO.pages, record_ip=True)
    settings.EMAILAUTO = msgspec.structs.replace(settings.EMAILAUTO, pages=pages)
    say(message, EVERYTHING)
    assert "; IP 127.0.0.1;" in Consent.objects.get().evidence


def test_saying_it_twice_is_saying_it_once(message: Message) -> None:
    wish = {"weekly_limit": "2", "pause": "30", "may_track": "on", "locale": "de"}
    say(message, ["tips"], **wish)

    def everything() -> tuple[Any, ...]:
        return (
            ledger(),
            suppressions(),
            list(Contact.objects.values_list("paused_until", "weekly_limit", "updated_at")),
        )

    before = everything()
    assert say(message, ["tips"], **wish).status_code == 200
    assert everything() == before


def test_tracking_is_a_consent_of_its_own(message: Message) -> None:
    say(message, ["carts", "news"], may_track="on")
    assert Contact.objects.get().may_track
    line = Consent.objects.get()
    assert (line.purpose, line.state, line.topic) == (Purpose.TRACKING, "granted", None)
    say(message, ["carts", "news"])
    assert not Contact.objects.get().may_track
    assert ledger() == [(None, "granted"), (None, "withdrawn")]


def test_stopping_everything_stops_the_recording_too(message: Message) -> None:
    say(message, ["carts", "news"], may_track="on")
    post(message, PREFERENCES, {"stop": "all"})
    assert not Contact.objects.get().may_track


def test_limit_pause_sharing_and_language_are_kept(message: Message) -> None:
    html = say(
        message, ["news"], weekly_limit="3", pause="7", do_not_share="on", locale="de"
    ).content.decode()
    contact = Contact.objects.get()
    assert (contact.weekly_limit, contact.do_not_share, contact.locale) == (3, True, "de")
    assert 7 <= (contact.paused_until - now()).total_seconds() / 86_400 <= 8
    assert '<html lang="de" dir="ltr">' in html
    say(message, ["news"], pause="0")
    contact = Contact.objects.get()
    assert (contact.weekly_limit, contact.do_not_share, contact.locale) == (None, False, "")
    assert contact.paused_until is None


def test_pause_goes_on_when_something_else_is_saved(message: Message) -> None:
    say(message, ["news"], pause="90")
    until = Contact.objects.get().paused_until
    assert "Paused until" in say(message, ["news"], pause="").content.decode()
    assert Contact.objects.get().paused_until == until


def test_global_privacy_control_is_shown_and_honoured(message: Message) -> None:
    html = get(message, PREFERENCES, headers={"sec-gpc": "1"}).content.decode()
    assert "Global Privacy Control" in html
    assert not Contact.objects.get().do_not_share  # looking changes nothing
    say(message, ["news"], headers={"sec-gpc": "1"})
    assert Contact.objects.get().do_not_share


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"topic": "news"},
        {"form": "preferences", "weekly_limit": "many"},
        {"form": "preferences", "weekly_limit": "²"},
        {"form": "preferences", "weekly_limit": "-1"},
        {"form": "preferences", "pause": "36500"},
        {"form": "preferences", "locale": "tlh"},
        {"form": "preferences", "locale": "../../etc"},
    ],
)
def test_what_is_not_our_form_changes_nothing(message: Message, data: dict[str, str]) -> None:
    response = post(message, PREFERENCES, data)
    assert response.status_code == 400
    assert ledger() == []
    assert suppressions() == set()


def test_unknown_topics_are_passed_over(message: Message) -> None:
    assert say(message, ["carts", "news", "nonsense", "\x00"]).status_code == 200
    assert ledger() == []


def test_link_to_an_address_they_left_turns_off_and_not_on(message: Message) -> None:
    Contact.objects.update(email="new@example.org", email_normalized="new@example.org")
    html = say(message, ["news", "tips"]).content.decode()
    assert "no longer use" in html
    assert ledger() == [("carts", "withdrawn")]
    hashes = {address_hash(a) for a in ("ada@example.com", "new@example.org")}
    rows = Suppression.objects.filter(scope="topic:carts")
    assert {bytes(row.address_hash) for row in rows} == hashes


def settings_of(contact: Contact) -> dict[str, Any]:
    fields = ("may_track", "do_not_share", "weekly_limit", "paused_until", "locale")
    return {field: getattr(contact, field) for field in fields}


def left_the_address(**fields: Any) -> Contact:
    Contact.objects.update(email="new@example.org", email_normalized="new@example.org", **fields)
    return Contact.objects.get()


@pytest.mark.parametrize(
    "wish",
    [
        {"may_track": "on", "pause": "0"},
        {"weekly_limit": "5", "pause": "7", "locale": "fr"},
        {"weekly_limit": "2", "pause": ""},
    ],
)
def test_link_to_an_address_they_left_loosens_nothing(
    message: Message, wish: dict[str, str]
) -> None:
    until = now() + timedelta(days=60)
    contact = left_the_address(
        may_track=False, do_not_share=True, weekly_limit=2, paused_until=until, locale="de"
    )
    before = settings_of(contact)
    say(message, ["carts", "news"], **wish)
    assert settings_of(Contact.objects.get()) == before
    assert ledger() == []


def test_link_to_an_address_they_left_may_tighten(message: Message) -> None:
    left_the_address(may_track=True, weekly_limit=5, paused_until=now() + timedelta(days=3))
    say(message, ["carts", "news"], weekly_limit="1", pause="30", do_not_share="on")
    contact = Contact.objects.get()
    assert (contact.may_track, contact.do_not_share, contact.weekly_limit) == (False, True, 1)
    assert contact.paused_until > now() + timedelta(days=29)
    assert ledger() == [(None, "withdrawn")]


def test_page_of_an_address_they_left_offers_nothing_looser(message: Message) -> None:
    left_the_address(do_not_share=True, weekly_limit=2, paused_until=now() + timedelta(days=60))
    html = get(message, PREFERENCES).content.decode()
    for field in (
        *('name="may_track" disabled', 'name="do_not_share" checked disabled'),
        *('name="locale" disabled', 'value="0" disabled'),
    ):
        assert field in html
    assert re.findall(r'<option value="(\w*)"', html.split("</select>")[0]) == ["1", "2"]


def test_page_of_somebody_who_was_erased_is_404(message: Message) -> None:
    Contact.objects.update(erased_at=Now(), is_active=False, email="", email_normalized=None)
    assert get(message, PREFERENCES).status_code == 404
    assert say(message, EVERYTHING).status_code == 404
    assert ledger() == []


def test_number_of_queries_does_not_depend_on_the_topics(
    message: Message, django_assert_num_queries: Any
) -> None:
    client, path = strict_client(), path_of(message, PREFERENCES)
    for size in (0, 40):
        for n in range(size):
            TopicFactory(key=f"topic-{n}", name=f"Topic {n}")
        with django_assert_num_queries(4):
            client.get(path)


def test_number_of_queries_to_save_does_not_depend_on_what_changed(message: Message) -> None:
    counts = []
    for prefix, size in (("few", 2), ("many", 20)):
        keys = [TopicFactory(key=f"{prefix}-{n}").key for n in range(size)]
        with CaptureQueriesContext(connection) as queries:
            say(message, ["carts", "news"])
        assert Consent.objects.filter(topic__key__in=keys).count() == size
        counts.append(len(queries))
    assert counts[0] == counts[1]

"""What is behind `/u`, `/p`, `/c`, `/d` and `/v`: unsubscribing, the preference page, the button of
a double opt-in, one's data, the mail in a browser."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils import translation

from contacts.copies import ready_copy
from contacts.models import Contact
from delivery.links import CONFIRM, PERSONAL_DATA, PREFERENCES, UNSUBSCRIBE, VIEW, link
from delivery.preview import RenderError, as_sent
from preferences.languages import language_choices, page_language
from preferences.optin import confirm, is_open, topic_of
from preferences.pages import RecipientPage, private
from preferences.personal import Wanted, asked_by, copy_for, forget, send_link
from preferences.services import TRACKING, Wish, save_wish, stop_everything, unsubscribe
from preferences.standing import Standing, read_standing
from preferences.words import parts_in_words
from suppression.states import MARKETING, topic_scope

_ONE_CLICK = b"List-Unsubscribe=One-Click"

WEEKLY_LIMITS = (1, 2, 3, 5)
PAUSES = (7, 30, 90)
"""Days."""

# Bytes. What is longer is given as a file, whichever button was pressed.
_MOST_SHOWN = 4_000_000

# The mail is other people's HTML. Its links open in a tab of their own, which is free again.
_MAIL_POLICY = (
    "default-src 'none'; img-src https: http: data:; style-src 'unsafe-inline'; "
    "font-src https: data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; "
    "sandbox allow-popups allow-popups-to-escape-sandbox allow-top-navigation-by-user-activation"
)


class UnsubscribeView(RecipientPage):
    """`/u/<token>`: the page with the buttons, what they do, and RFC 8058's one-click POST."""

    purpose = UNSUBSCRIBE

    def is_first_no(self) -> bool:
        return self.message.unsubscribed_at is None and self._scope() is not None

    def show(self) -> HttpResponse:
        return self._page("unsubscribe")

    def act(self) -> HttpResponse:
        message, proof = self.message, self.proof("unsubscribe")
        scope = self._scope()
        if scope is None:
            return self._page("unsubscribe", {"is_unread": True}, status=400)
        if self._is_one_click():
            unsubscribe(message, scope, source="one-click", evidence=proof.evidence)
            return private(HttpResponse("Unsubscribed.\n", content_type="text/plain"))
        unsubscribe(message, scope, source=proof.source, evidence=proof.evidence)
        return self._page("done", {"choice": self.request.POST["scope"]})

    def _is_one_click(self) -> bool:
        # Some send a line end behind it, or name a character set that Django does not read.
        is_multipart = self.request.content_type == "multipart/form-data"
        if not is_multipart and self.request.body.strip() == _ONE_CLICK:
            return True
        return self.request.POST.get("List-Unsubscribe", "").strip() == "One-Click"

    def _scope(self) -> str | None:
        """What they unsubscribe from, if the form says that."""
        if self._is_one_click():
            return MARKETING
        choice = self.request.POST.get("scope")
        if choice == "all":
            return MARKETING
        topic = self.message.topic
        return topic_scope(topic.key) if choice == "topic" and topic is not None else None

    def _page(self, name: str, facts: Mapping[str, Any] = {}, **options: Any) -> HttpResponse:
        more = {"preferences_url": _local(PREFERENCES, self.message.pk)}
        return self.page(name, {**more, **facts}, **options)


class PreferencesView(RecipientPage):
    """`/p/<token>`: everything a person can say about being mailed."""

    purpose = PREFERENCES

    def _find(self, message_id: UUID | None) -> bool:
        # Of somebody who was erased there is nothing left to prefer.
        return super()._find(message_id) and self.message.contact.erased_at is None

    def is_first_no(self) -> bool:
        return "stop" in self.request.POST and self.message.contact.objected_at is None

    def show(self) -> HttpResponse:
        return self._standing(read_standing(self.message, self.message.contact))

    def act(self) -> HttpResponse:
        proof = self.proof("preferences")
        if (wanted := self.request.POST.get("data")) in list(Wanted):
            return self._ask(Wanted(wanted))
        if "stop" in self.request.POST:
            return self._standing(stop_everything(self.message, proof), saved="stopped")
        wish = read_wish(self.request, self.message.contact)
        if wish is None:
            standing = read_standing(self.message, self.message.contact)
            return self._standing(standing, saved="unread", status=400)
        standing = save_wish(self.message, wish, proof)
        accepted = self.request.headers.get("Accept-Language", "")
        self.language = page_language(wish.locale, accepted)
        return self._standing(standing, saved="saved")

    def _ask(self, wanted: Wanted) -> HttpResponse:
        asked = send_link(self.message.contact, wanted)
        standing = read_standing(self.message, self.message.contact)
        return self._standing(standing, saved=asked.value)

    def _standing(self, standing: Standing, *, saved: str = "", status: int = 200) -> HttpResponse:
        facts = {
            "standing": standing,
            "contact": standing.contact,
            "saved": saved,
            "signals": _signals(self.request),
            "limits": _limits(standing),
            "recording": TRACKING,
            "languages": language_choices(standing.contact.locale),
        }
        return self.page("preferences", facts, status=status)


class ConfirmView(RecipientPage):
    """`/c/<token>`: the button of a double opt-in. Scanners open links; none of them presses it."""

    purpose = CONFIRM

    def show(self) -> HttpResponse:
        return self._answer("confirm", is_known=is_open(self.message))

    def act(self) -> HttpResponse:
        is_known = confirm(self.message, self.proof("confirm"))
        standing = read_standing(self.message, self.message.contact)
        asked = topic_of(self.message)
        of_topic = next((line.blocked_by for line in standing.topics if line.topic == asked), "")
        return self._answer(
            "confirmed", is_known=is_known, blocked_by=standing.blocked_by or of_topic
        )

    def _answer(self, name: str, *, is_known: bool, blocked_by: str = "") -> HttpResponse:
        if not is_known:
            return self.page("closed", status=410)
        more = {"preferences_url": _local(PREFERENCES, self.message.pk), "blocked_by": blocked_by}
        return self.page(name, {**more, "asked": topic_of(self.message)})


class PersonalDataView(RecipientPage):
    """`/d/<token>`: the copy of one's data, or the button that erases it. Both take a POST, so
    that a scanner fetches nobody's data."""

    purpose = PERSONAL_DATA

    def show(self) -> HttpResponse:
        wanted = asked_by(self.message)
        if wanted is None:
            return self.page("closed", status=410)
        if wanted is Wanted.ERASE:
            return self.page("erase")
        return self.page("copy", {"is_ready": ready_copy(self.message.contact) is not None})

    def act(self) -> HttpResponse:
        wanted = asked_by(self.message)
        if wanted is Wanted.ERASE and "erase" in self.request.POST:
            forget(self.message)
            return self.page("erased")
        if wanted is Wanted.EXPORT and "copy" in self.request.POST:
            return self._copy(self.request.POST["copy"])
        return self.page("closed", status=410)

    def _copy(self, kind: str) -> HttpResponse:
        copy = copy_for(self.message)
        if copy is None:
            return self.page("copy", {"is_ready": False})
        if kind == "json" or len(copy) > _MOST_SHOWN:
            response = private(HttpResponse(copy, content_type="application/json"))
            response["Content-Disposition"] = 'attachment; filename="personal-data.json"'
            return response
        with translation.override(self.language):
            parts = list(parts_in_words(json.loads(copy)))
        return self.page("personal_copy", {"parts": parts})


class BrowserView(RecipientPage):
    """`/v/<token>`: the HTML part as it was sent."""

    purpose = VIEW
    http_method_names = ["get", "head"]

    def show(self) -> HttpResponse:
        # What asks to prove something is for the mailbox alone.
        if self.message.contact.erased_at is not None or "action" in self.message.context:
            return self.page("unknown", status=404)
        try:
            html = as_sent(self.message).html
        except RenderError:
            return self.page("unknown", status=404)
        response = private(HttpResponse(html))
        response["Content-Security-Policy"] = _MAIL_POLICY
        return response


def _limits(standing: Standing) -> list[int]:
    """What may be chosen: their own number is always among it, and nothing wider than that where
    they may only turn things off."""
    own = standing.contact.weekly_limit
    if own is None:
        return list(WEEKLY_LIMITS)
    most = own if standing.is_moved else max(WEEKLY_LIMITS)
    return sorted({own, *(limit for limit in WEEKLY_LIMITS if limit <= most)})


def read_wish(request: HttpRequest, contact: Contact) -> Wish | None:
    """What the form says; None when it is not our form. What the person has already may stay,
    whatever it is."""
    data = request.POST
    limit, pause = data.get("weekly_limit", ""), data.get("pause", "")
    locale = data.get("locale", "")
    own = "" if contact.weekly_limit is None else str(contact.weekly_limit)
    if not (
        (limit == own or _is_number(limit))
        and _is_number(pause)
        and data.get("form") == "preferences"
    ):
        return None
    if pause and int(pause) not in (0, *PAUSES):
        return None
    if locale not in ("", contact.locale, *settings.PAGE_LANGUAGES):
        return None
    return Wish(
        topics=frozenset(data.getlist("topic")),
        # A page of the shop's own may leave it out.
        shown=frozenset(data.getlist("shown")) if "shown" in data else None,
        was_on=frozenset(data.getlist("was_on")),
        may_track="may_track" in data,
        do_not_share="do_not_share" in data or _signals(request),
        weekly_limit=_limit(limit, own),
        pause_days=int(pause) if pause else None,
        locale=locale,
    )


def _limit(text: str, own: str) -> int | None:
    if not text:
        return None
    return int(text) if text == own else max(1, int(text))


def _is_number(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit() and len(text) <= 3)


def _signals(request: HttpRequest) -> bool:
    """Global Privacy Control: the browser says it for its user, on every site."""
    return request.headers.get("Sec-GPC") == "1"


def _local(purpose: str, message_id: Any) -> str:
    return link(purpose, message_id).removeprefix(settings.PUBLIC_URL)

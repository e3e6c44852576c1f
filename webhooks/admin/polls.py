"""The admin of polls: how far the reading of the providers' lists has come."""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import ngettext

from common.admin.operations import Operation, Refused
from common.admin.records import RecordAdmin
from common.admin.words import ago, badge
from webhooks.models import Poll
from webhooks.reconciliation.services import forget_cursors, hurry_polls


def _poll_now(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    return _soon(hurry_polls, ids)


def _read_again(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    return _soon(forget_cursors, ids)


def _soon(prepare: Callable[[list[int]], int], ids: list[Any]) -> str:
    if settings.RECONCILE_HOURS <= 0:
        raise Refused("No worker reads lists here, because RECONCILE_HOURS is 0.")
    count = prepare(ids)
    words = ngettext("%d list is read", "%d lists are read", count) % count
    return f"{words} within a minute or two."


@admin.register(Poll)
class PollAdmin(RecordAdmin[Poll]):
    """What providers have on their lists, whether or not their webhooks arrived."""

    change_form_template = "admin/webhooks/poll/change_form.html"
    list_display = ["name", "state_label", "entries", "restored", "last_run", "last_ok", "due"]
    list_select_related = ["provider"]
    list_filter = ["source"]
    ordering = ("provider__key",)
    empty_text = (
        "The lists of SES, SendGrid, Postmark, Mailgun and Brevo are read once a day, as soon as "
        "one of them is set up."
    )
    operations = (
        Operation(
            name="poll-now",
            label="Poll now",
            icon="sync",
            run=_poll_now,
            primary=True,
            bulk=True,
        ),
        Operation(
            name="read-again",
            label="Read from the beginning",
            icon="restart_alt",
            run=_read_again,
            question="The whole list is read, not only what is new. Whoever is on it is "
            "suppressed, also if the suppression was lifted here.",
            bulk=True,
        ),
    )

    @admin.display(description="list", ordering="provider__key")
    def name(self, poll: Poll) -> str:
        return f"{poll.provider.key}: {poll.list.replace('_', ' ')}"

    @admin.display(description="state")
    def state_label(self, poll: Poll) -> SafeString:
        if poll.last_error:
            return badge("not told", "red")
        if poll.until is not None:
            return badge("being read", "blue")
        return badge("read", "green") if poll.last_ok_at else badge("not yet")

    @admin.display(description="last run", ordering="last_run_at")
    def last_run(self, poll: Poll) -> SafeString | str:
        return ago(poll.last_run_at)

    @admin.display(description="complete", ordering="last_ok_at")
    def last_ok(self, poll: Poll) -> SafeString | str:
        return ago(poll.last_ok_at)

    @admin.display(description="due", ordering="due_at")
    def due(self, poll: Poll) -> SafeString | str:
        return ago(poll.due_at)

    def details(self, request: HttpRequest, row: Poll) -> dict[str, Any]:
        return {
            "headline": f"{row.list.replace('_', ' ').capitalize()} at {row.provider.key}",
            "state": self.state_label(row),
            "lead": "It could not be read to its end; what was read is applied."
            if row.last_error
            else "Whoever the provider has on this list is not mailed from here either.",
        }

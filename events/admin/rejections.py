"""Refused events: what was not let in and why, and letting it in after all."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import ngettext

from common.admin.operations import Operation, Refused
from common.admin.records import KeyFilter, RecordAdmin
from common.admin.words import ago, badge
from events.admin.events import schema_of
from events.admin.forms import DiscardForm
from events.dead_letters import Replay, discard_rejections, replay_rejections
from events.marks import redacted
from events.models import Rejection
from events.states import RefusalCode, RejectionState

_TONES: dict[str, str] = {
    RejectionState.OPEN: "red",
    RejectionState.REPLAYED: "green",
    RejectionState.DISCARDED: "grey",
}


class SourceFilter(KeyFilter):
    """By the namespace of the key it was posted with."""

    model = Rejection
    title = "source"
    parameter_name = "source"


def _replay(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    outcome = replay_rejections(ids)
    if not outcome.taken:
        raise Refused(_why_none(outcome))
    taken = ngettext("%d event was let in.", "%d events were let in.", outcome.taken)
    again = f" {_refused_again(outcome.refused)}" if outcome.refused else ""
    return taken % outcome.taken + again


def _why_none(outcome: Replay) -> str:
    if outcome.refused:
        return _refused_again(outcome.refused)
    return "Nothing was changed: only open ones whose content was kept can be replayed."


def _refused_again(count: int) -> str:
    return (
        ngettext(
            "%d event was refused again; its page says why.",
            "%d events were refused again; their pages say why.",
            count,
        )
        % count
    )


def _discard(_request: HttpRequest, ids: list[Any], data: dict[str, Any]) -> str:
    count = discard_rejections(ids, data["note"])
    if not count:
        raise Refused("Nothing was changed: only open ones can be discarded.")
    return ngettext("%d event discarded.", "%d events discarded.", count) % count


@admin.register(Rejection)
class RejectionAdmin(RecordAdmin[Rejection]):
    """Events that were not let in, by id and reason, and with their content where the producer
    will not send them again."""

    change_form_template = "admin/events/rejection/change_form.html"
    list_display = ["event", "reason", "state_label", "source", "times", "last_seen"]
    list_filter = ["state", "code", SourceFilter]
    search_fields = ["event_id"]
    search_help_text = "Event id"
    empty_text = "Good: no event was refused but for its shape, which its producer was told."
    operations = (
        Operation(
            name="replay",
            label="Replay",
            icon="replay",
            run=_replay,
            question="They are read again and held against today's rules and schemas. What is "
            "still refused stays here.",
            when=lambda rejection: _is_open(rejection) and rejection.body is not None,
            primary=True,
            bulk=True,
        ),
        Operation(
            name="discard",
            label="Discard",
            icon="delete",
            run=_discard,
            question="They are never let in from here. The rows stay readable, with your reason.",
            form=DiscardForm,
            when=lambda rejection: _is_open(rejection),
            danger=True,
            bulk=True,
        ),
    )

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Rejection], search_term: str
    ) -> tuple[QuerySet[Rejection], bool]:
        term = search_term.strip().replace("\x00", "")
        return (queryset.filter(event_id=term) if term else queryset), False

    @admin.display(description="event")
    def event(self, rejection: Rejection) -> SafeString:
        if not rejection.type:
            return format_html('<span class="ea-mono ea-clip">{}</span>', rejection.event_id or "–")
        return format_html(
            '<span class="ea-two"><span class="ea-strong">{}</span>'
            '<span class="ea-faint ea-small ea-mono ea-clip">{}</span></span>',
            rejection.type,
            rejection.event_id,
        )

    @admin.display(description="reason", ordering="code")
    def reason(self, rejection: Rejection) -> str:
        return rejection.get_code_display()

    @admin.display(description="state", ordering="state")
    def state_label(self, rejection: Rejection) -> SafeString:
        return badge(rejection.get_state_display(), _TONES[rejection.state])

    @admin.display(description="last refused", ordering="last_at")
    def last_seen(self, rejection: Rejection) -> SafeString | str:
        return ago(rejection.last_at)

    def details(self, request: HttpRequest, row: Rejection) -> dict[str, Any]:
        return {
            "headline": row.type or "Refused event",
            "state": badge(row.get_state_display(), _TONES[row.state]),
            "lead": f"{row.get_code_display()}.",
            "advice": _advice(row),
            "body": _shown(row),
        }


def _is_open(rejection: Rejection) -> bool:
    return rejection.state == RejectionState.OPEN


def _advice(rejection: Rejection) -> str:
    if not _is_open(rejection):
        return ""
    if rejection.code == RefusalCode.RESIDENCY:
        return "Nothing of its content was kept, nor may be."
    if rejection.body is None:
        return "Its producer was told and has it still; when it posts it again, it is let in."
    return "Its producer will not send it again. Mend the cause, then replay it."


def _shown(rejection: Rejection) -> Any:
    """The body with the sensitive values of its payload hidden, or None."""
    body = rejection.body
    if not isinstance(body, dict) or "payload" not in body:
        return body
    return {**body, "payload": redacted(body["payload"], schema_of(rejection.type))}

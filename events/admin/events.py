"""The inbox as a log: every event as it was posted, what became of it, and what to do about the
dead ones."""

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import ngettext

from common.admin.operations import Operation, Refused
from common.admin.records import KeyFilter, RecordAdmin
from common.admin.words import ago, badge, query
from events.admin.forms import DiscardForm
from events.dead_letters import discard_dead, replay_dead
from events.marks import redacted
from events.models import Event, EventType
from events.states import EventState, IgnoredReason

_TONES: dict[str, str] = {
    EventState.PENDING: "blue",
    EventState.PROCESSED: "green",
    EventState.IGNORED: "grey",
    EventState.DEAD: "red",
}

_STATES: dict[str, str] = {
    EventState.PENDING: "It waits for the engine.",
    EventState.PROCESSED: "It started or continued a campaign.",
    EventState.IGNORED: "It started nothing.",
    EventState.DEAD: "It could not be processed. It is kept, and can be replayed once the "
    "cause is gone.",
}

_GOOD = frozenset({"entered", "awaited"})
_RESULTS: dict[str, tuple[str, str]] = {
    "entered": ("The person entered", "green"),
    "awaited": ("Was waited for: the person went on", "green"),
    **{reason.value: (str(reason.label), "grey") for reason in IgnoredReason},
}


class TypeFilter(KeyFilter):
    """By the type as it was posted, registered or not."""

    model = Event
    title = "type"
    parameter_name = "type"


def _moved(count: int, one: str, many: str) -> str:
    if not count:
        raise Refused("Nothing was changed: only dead events can be replayed or discarded.")
    return ngettext(one, many, count) % count


def _replay(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    return _moved(replay_dead(ids), "%d event is pending again.", "%d events are pending again.")


def _discard(_request: HttpRequest, ids: list[Any], data: dict[str, Any]) -> str:
    count = discard_dead(ids, data["note"])
    return _moved(count, "%d event discarded.", "%d events discarded.")


def _is_dead(event: Event) -> bool:
    return event.state == EventState.DEAD


@admin.register(Event)
class EventAdmin(RecordAdmin[Event]):
    """Every event exactly as it was posted, and what became of it."""

    change_form_template = "admin/events/event/change_form.html"
    list_display = [
        "type_and_id",
        "user_id",
        "state_label",
        "outcome_words",
        "received",
    ]
    list_filter = ["state", "reason", TypeFilter]
    search_fields = ["event_id"]
    search_help_text = "Event id or user id"
    empty_text = "What services post to /api/v1/events shows up here, exactly as it was posted."
    operations = (
        Operation(
            name="replay",
            label="Replay",
            icon="replay",
            run=_replay,
            question="Dead events get another five attempts. What they had already done is "
            "not done twice.",
            when=_is_dead,
            primary=True,
            bulk=True,
        ),
        Operation(
            name="discard",
            label="Discard",
            icon="delete",
            run=_discard,
            question="Dead events are never processed again. They stay readable, with their "
            "traceback and your reason.",
            form=DiscardForm,
            when=_is_dead,
            danger=True,
            bulk=True,
        ),
    )

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Event], search_term: str
    ) -> tuple[QuerySet[Event], bool]:
        term = search_term.strip().replace("\x00", "")
        return (queryset.filter(Q(event_id=term) | Q(user_id=term)) if term else queryset), False

    @admin.display(description="event")
    def type_and_id(self, event: Event) -> SafeString:
        return format_html(
            '<span class="ea-two"><span class="ea-strong">{}</span>'
            '<span class="ea-faint ea-small ea-mono ea-clip">{}</span></span>',
            event.type,
            event.event_id,
        )

    @admin.display(description="state", ordering="state")
    def state_label(self, event: Event) -> SafeString:
        return badge(event.get_state_display(), _TONES[event.state])

    @admin.display(description="outcome")
    def outcome_words(self, event: Event) -> str:
        if event.state == EventState.PROCESSED:
            results = [entry for entry in event.outcome if entry.get("result") in _GOOD]
            return ", ".join(str(entry.get("campaign", "")) for entry in results)
        return event.get_reason_display() if event.reason else ""

    @admin.display(description="received", ordering="pk")
    def received(self, event: Event) -> SafeString | str:
        return ago(event.received_at)

    def details(self, request: HttpRequest, row: Event) -> dict[str, Any]:
        reason = f" {row.get_reason_display()}." if row.reason else ""
        return {
            "headline": row.type,
            "state": badge(row.get_state_display(), _TONES[row.state]),
            "lead": _STATES[row.state] + reason,
            "results": [_result(entry) for entry in row.outcome if isinstance(entry, dict)],
            "payload": redacted(row.payload, schema_of(row.type)),
            "messages_url": reverse("admin:delivery_message_changelist")
            + query({"origin_event_id": row.event_id}),
        }


def schema_of(type_name: str) -> dict[str, Any]:
    """The schema of a registered type; empty for others. One query."""
    schema = EventType.objects.filter(name=type_name).values_list("schema", flat=True).first()
    return schema or {}


def _result(entry: dict[str, Any]) -> dict[str, Any]:
    words, tone = _RESULTS.get(str(entry.get("result")), (str(entry.get("result")), "grey"))
    campaign = f"{entry['more']:,} more" if "more" in entry else entry.get("campaign", "")
    return {"campaign": campaign, "label": badge(words, tone)}

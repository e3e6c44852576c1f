"""Event types: where the person stands in an event, and what its payload must look like."""

from typing import Any

from django.contrib import admin
from django.contrib.postgres.aggregates import StringAgg
from django.db.models import Min
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.forms.widgets import ArrayWidget

from common.admin.operations import OperationsMixin
from common.admin.words import badge, query
from events.admin.forms import EventTypeForm
from events.marks import marked_paths
from events.models import Event, EventType, SeenType
from events.samples import schema_from_events
from events.schema_rules import PII, SENSITIVE

_SUGGEST = "suggest"
_MOST_SHOWN = 50


@admin.register(EventType)
class EventTypeAdmin(OperationsMixin[EventType]):
    """Kinds of events that rules can name, their schema, and where their person stands in them."""

    form = EventTypeForm
    empty_text = "Any event is accepted. Add the types that campaigns start on or wait for."
    change_form_template = "admin/events/eventtype/change_form.html"
    change_form_before_template = "admin/events/eventtype/notices.html"
    list_before_template = "admin/events/eventtype/unregistered.html"
    list_display = ["name", "description", "schema_label", "events"]
    search_fields = ["name", "description"]
    fieldsets = [
        (None, {"fields": ["name", "description"]}),
        (
            "What its payload looks like",
            {
                "description": "An event that does not fit is refused, and the place of each "
                "problem named by a JSON pointer. A broker's goes to its dead-letter queue.",
                "fields": ["schema"],
            },
        ),
        (
            "Where the person stands in the event",
            {
                "description": "Dotted paths, the first one found counts. What is not registered "
                "here uses the defaults you see when adding a type.",
                "fields": ["user_id_paths", "email_paths", "profile_paths"],
            },
        ),
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: EventType | None = None) -> list[str]:
        # Published campaigns and stored events know the type by this name.
        return ["name"] if obj is not None else []

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name in ("user_id_paths", "email_paths"):
            kwargs["widget"] = ArrayWidget
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """`?name=…` registers a type that was seen: its schema is suggested."""
        initial: dict[str, Any] = dict(super().get_changeform_initial_data(request))
        if name := str(initial.get("name", "")).replace("\x00", ""):
            initial["name"] = name
            if _may_see_events(request):
                initial["schema"] = schema_from_events(name)
        return initial

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> EventType | None:
        """`?suggest=1` fills the form with a suggestion; only what is posted is ever saved."""
        event_type = super().get_object(request, object_id, from_field)
        is_asked = request.method == "GET" and _SUGGEST in request.GET
        if event_type is not None and is_asked and _may_see_events(request):
            event_type.schema = schema_from_events(event_type.name)
        return event_type

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        names = _unregistered()
        panel = {"unregistered": names[:_MOST_SHOWN], "are_more": len(names) > _MOST_SHOWN}
        return super().changelist_view(request, {**(extra_context or {}), **panel})

    @admin.display(description="payload")
    def schema_label(self, event_type: EventType) -> SafeString:
        return badge("has a schema", "green") if event_type.schema else badge("any object")

    @admin.display(description="")
    def events(self, event_type: EventType) -> SafeString:
        url = reverse("admin:events_event_changelist") + query({"type": event_type.name})
        return format_html('<a class="ea-link" href="{}">Its events</a>', url)

    def details(self, request: HttpRequest, row: EventType) -> dict[str, Any]:
        return {
            "headline": row.name,
            "state": self.schema_label(row),
            "lead": self.events(row),
            "personal": marked_paths(row.schema, PII),
            "sensitive": marked_paths(row.schema, SENSITIVE),
            "has_events": Event.objects.filter(type=row.name).exists(),
        }


def _may_see_events(request: HttpRequest) -> bool:
    """A suggestion names values that were posted."""
    return bool(request.user.has_perm("events.view_event"))


def _unregistered() -> list[Any]:
    """Names that were posted and are not registered, the newest first, one more than is shown:
    `name`, `sources`, `first`. One query."""
    unknown = SeenType.objects.exclude(name__in=EventType.objects.values("name"))
    grouped = unknown.values("name").annotate(
        sources=StringAgg("source", ", ", distinct=True), first=Min("first_at")
    )
    return list(grouped.order_by("-first", "name")[: _MOST_SHOWN + 1])

"""The admin of events: the inbox as a log, event types, and the keys of those who post."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import ngettext
from unfold.contrib.forms.widgets import ArrayWidget
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from common.admin.bases import ModelAdmin, ModelForm
from common.admin.operations import Operation, OperationsMixin, Refused
from common.admin.records import KeyFilter, RecordAdmin
from common.admin.words import ago, badge, query
from common.clock import now
from events.models import ApiKey, Event, EventType, Scope, default_scopes
from events.services import replay_dead, revoke_keys
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


def _replay(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    count = replay_dead(ids)
    if not count:
        raise Refused("Nothing was changed: only dead events can be replayed.")
    return ngettext("%d event is pending again.", "%d events are pending again.", count) % count


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
            when=lambda event: event.state == EventState.DEAD,
            primary=True,
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
            "messages_url": reverse("admin:delivery_message_changelist")
            + query({"origin_event_id": row.event_id}),
        }


def _result(entry: dict[str, Any]) -> dict[str, Any]:
    words, tone = _RESULTS.get(str(entry.get("result")), (str(entry.get("result")), "grey"))
    return {"campaign": entry.get("campaign", ""), "label": badge(words, tone)}


class EventTypeForm(ModelForm[EventType]):
    """Paths one per line; the profile as attribute → paths."""

    def clean_profile_paths(self) -> dict[str, list[str]]:
        value = self.cleaned_data["profile_paths"] or {}
        fine = isinstance(value, dict) and all(
            isinstance(paths, list) and all(isinstance(path, str) for path in paths)
            for paths in value.values()
        )
        if not fine:
            raise forms.ValidationError(
                'An object of lists, e.g. {"name": ["payload.name", "payload.user.name"]}.'
            )
        return value


@admin.register(EventType)
class EventTypeAdmin(ModelAdmin[EventType]):
    """Kinds of events that rules can name, and where their person stands in them."""

    form = EventTypeForm
    empty_text = "Any event is accepted. Add the types that campaigns start on or wait for."
    list_display = ["name", "description", "events"]
    search_fields = ["name", "description"]
    fieldsets = [
        (None, {"fields": ["name", "description"]}),
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

    @admin.display(description="")
    def events(self, event_type: EventType) -> SafeString:
        url = reverse("admin:events_event_changelist") + query({"type": event_type.name})
        return format_html('<a class="ea-link" href="{}">Its events</a>', url)


class ApiKeyForm(ModelForm[ApiKey]):
    """Name, namespace, scopes, expiry; the key itself is made, never typed."""

    scopes = forms.MultipleChoiceField(
        choices=Scope.choices,
        initial=default_scopes,
        widget=UnfoldAdminCheckboxSelectMultipleWidget(),
    )


def _revoke(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    count = revoke_keys(ids)
    if not count:
        raise Refused("Nothing was changed: the key was revoked before.")
    return ngettext("%d key revoked.", "%d keys revoked.", count) % count


@admin.register(ApiKey)
class ApiKeyAdmin(OperationsMixin[ApiKey]):
    """Who may post events and read messages. A key is shown once, when it is made."""

    form = ApiKeyForm
    empty_text = "Add a key for each service that posts events."
    change_form_template = "admin/operated.html"
    list_display = [
        "name",
        "public_part",
        "source",
        "may",
        "status",
        "last_used",
    ]
    search_fields = ["name", "prefix", "source"]
    fields = ["name", "source", "scopes", "expires_at"]
    operations = (
        Operation(
            name="revoke",
            label="Revoke",
            icon="key_off",
            run=_revoke,
            question="Whoever uses it is refused from now on. A revoked key never works again.",
            when=lambda key: key.revoked_at is None,
            danger=True,
            bulk=True,
        ),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> list[str]:
        # The namespace decides which events count as the same one.
        return ["source"] if obj is not None else []

    @admin.display(description="key")
    def public_part(self, key: ApiKey) -> SafeString:
        return format_html('<span class="ea-mono">{}{}_…</span>', key.PREFIX, key.prefix)

    @admin.display(description="may")
    def may(self, key: ApiKey) -> str:
        names = dict(Scope.choices)
        return ", ".join(str(names.get(scope, scope)) for scope in key.scopes)

    @admin.display(description="status")
    def status(self, key: ApiKey) -> SafeString:
        if key.revoked_at is not None:
            return badge("revoked", "red")
        return badge("valid", "green") if key.is_valid_at(now()) else badge("expired", "amber")

    @admin.display(description="last used", ordering="last_used_at")
    def last_used(self, key: ApiKey) -> SafeString | str:
        return ago(key.last_used_at) if key.last_used_at else "never"

    def save_model(
        self, request: HttpRequest, obj: ApiKey, form: ModelForm[ApiKey], change: bool
    ) -> None:
        if not change:
            # On the request, which ends with the page that shows it.
            token = request.new_api_token = ApiKey.new_token()  # type: ignore[attr-defined]
            obj.set_token(token)
        super().save_model(request, obj, form, change)

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        """The page with the key: it goes into no cookie, no session, no redirect."""
        context = {
            **self.admin_site.each_context(request),
            "title": "New API key",
            "opts": self.opts,
            "key": obj,
            "token": request.new_api_token,  # type: ignore[attr-defined]
            "api_url": request.build_absolute_uri(reverse("events")),
        }
        return TemplateResponse(request, "admin/events/apikey/created.html", context)

    def details(self, request: HttpRequest, row: ApiKey) -> dict[str, Any]:
        return {
            "headline": row.name,
            "state": self.status(row),
            "lead": self.public_part(row),
        }

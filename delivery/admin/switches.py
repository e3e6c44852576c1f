"""Switches: everything, or one provider, stopped or slowed down until somebody switches it on
again."""

from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from common.admin.bases import ModelAdmin, ModelForm
from common.admin.operations import Operation
from common.admin.records import RecordAdmin
from common.admin.words import ago, badge
from delivery.models import Provider, Switch
from delivery.services import resume_sending, stop_sending
from delivery.states import Reason


class SwitchForm(ModelForm[Switch]):
    """What to stop or slow down: everything or a provider. A campaign is paused on its page."""

    what = forms.ChoiceField(
        label="What",
        widget=UnfoldAdminSelectWidget(),
        help_text="One campaign? Pause it on its own page.",
    )

    class Meta:
        model = Switch
        fields: ClassVar[list[str]] = ["what", "per_hour", "note"]
        labels: ClassVar[dict[str, str]] = {"per_hour": "Mails an hour that still leave"}
        help_texts: ClassVar[dict[str, str]] = {"per_hour": "Empty: none, a full stop."}
        widgets: ClassVar[dict[str, Any]] = {
            "note": UnfoldAdminTextInputWidget(),
            "per_hour": UnfoldAdminIntegerFieldWidget(),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        keys = Provider.objects.values_list("key", flat=True)
        field = self.fields["what"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [("", "Everything"), *((key, f"Provider {key}") for key in keys)]
        field.required = False


def _lift(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    switches = Switch.objects.filter(pk__in=ids)
    released = sum(resume_sending(switch.target, switch.key) for switch in switches)
    return f"Switched on again; held messages released: {released}."


def _is_campaigns(switch: Switch) -> bool:
    return switch.reason in (Reason.CAMPAIGN_PAUSED, Reason.CAMPAIGN_STOPPED)


@admin.register(Switch)
class SwitchAdmin(RecordAdmin[Switch]):
    """Stops that every message meets. Those of campaigns are lifted on the campaign's page."""

    change_form_template = "admin/delivery/switch/change_form.html"
    empty_text = "Everything is on. Add a switch to hold all mail, or one provider's."
    list_display = ["stopped", "does", "why", "note", "since"]
    operations = (
        Operation(
            name="lift",
            label="Switch on again",
            icon="power_settings_new",
            run=_lift,
            question="What it held leaves at once, after all other checks.",
            when=lambda switch: not _is_campaigns(switch),
            primary=True,
            permission="delete",
        ),
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return ModelAdmin.has_add_permission(self, request)

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kw: Any
    ) -> Any:
        if obj is None:
            return SwitchForm
        return super().get_form(request, obj, change, **kw)

    def get_fields(self, request: HttpRequest, obj: Switch | None = None) -> Any:
        return ["what", "per_hour", "note"] if obj is None else super().get_fields(request, obj)

    def save_model(
        self, request: HttpRequest, obj: Switch, form: ModelForm[Switch], change: bool
    ) -> None:
        key = form.cleaned_data["what"]
        obj.target = Switch.Target.PROVIDER if key else Switch.Target.EVERYTHING
        obj.key = key
        reason = Reason.KILL_SWITCH if obj.is_stop else Reason.SLOWED
        stopped = stop_sending(obj.target, key, reason=reason, note=obj.note, per_hour=obj.per_hour)
        obj.pk = stopped.pk
        messages.warning(request, f"{obj.in_words}. Mail is held, nothing is lost.")

    @admin.display(description="what")
    def stopped(self, switch: Switch) -> str:
        return str(switch)

    @admin.display(description="does")
    def does(self, switch: Switch) -> str:
        if switch.per_hour is not None:
            return f"lets {switch.per_hour:,} an hour leave"
        if switch.until is not None:
            return f"stops until {timezone.localtime(switch.until):%d %b, %H:%M}"
        return "stops"

    @admin.display(description="why")
    def why(self, switch: Switch) -> SafeString:
        tone = "red" if switch.is_stop and not _is_campaigns(switch) else "amber"
        return badge(switch.get_reason_display(), tone)

    @admin.display(description="since", ordering="created_at")
    def since(self, switch: Switch) -> SafeString | str:
        return ago(switch.created_at)

    def details(self, request: HttpRequest, row: Switch) -> dict[str, Any]:
        advice = "Resume the campaign on its page to lift this." if _is_campaigns(row) else ""
        return {"state": self.why(row), "lead": row.note, "advice": advice}

"""The rows below a campaign: its rules, its steps, and what was published of them."""

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from campaigns.forms import RuleForm, StepForm, step_widgets
from campaigns.models import Campaign, Revision, Rule, Step
from common.admin.bases import StackedInline, TabularInline
from common.admin.words import ago


def _one_at_first(
    inline: Any, request: HttpRequest, obj: Campaign | None = None, **kwargs: Any
) -> int:
    """A new campaign starts with one empty row of each."""
    return 0 if obj is not None else 1


class RuleInline(StackedInline[Rule, Campaign]):
    """What starts the campaign."""

    model = Rule
    form = RuleForm
    verbose_name = "Rule"
    verbose_name_plural = "What starts it"
    get_extra = _one_at_first
    fields = ["event_type", "condition", "entry_key_path"]

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "condition":
            return db_field.formfield(form_class=RuleForm.Meta.field_classes["condition"])
        return super().formfield_for_dbfield(db_field, request, **kwargs)


class StepInline(StackedInline[Step, Campaign]):
    """What happens then, top to bottom."""

    model = Step
    form = StepForm
    verbose_name = "Step"
    verbose_name_plural = "What happens then"
    get_extra = _one_at_first
    ordering_field = "position"
    hide_ordering_field = True
    fields = [
        "position",
        ("kind", "key"),
        "template",
        "event_type",
        "match_path",
        ("wait_amount", "wait_unit"),
        ("on_event", "on_timeout"),
    ]

    class Media:
        js: ClassVar[list[str]] = ["campaigns/steps.js"]

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        formfield = super().formfield_for_dbfield(db_field, request, **kwargs)
        return step_widgets(formfield, db_field.name)


class RevisionInline(TabularInline[Revision, Campaign]):
    """What was published, newest first."""

    model = Revision
    verbose_name_plural = "Published revisions"
    extra = 0
    can_delete = False
    per_page = 10
    hide_title = True
    fields = ("number", "starts_on", "steps", "when", "published_by")
    readonly_fields = ("number", "starts_on", "steps", "when", "published_by")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Revision]:
        return super().get_queryset(request).select_related("published_by", "campaign")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description="starts on")
    def starts_on(self, revision: Revision) -> str:
        return ", ".join(revision.trigger_types)

    @admin.display(description="steps")
    def steps(self, revision: Revision) -> str:
        return " → ".join(str(step["key"]) for step in revision.snapshot["steps"])

    @admin.display(description="published")
    def when(self, revision: Revision) -> SafeString | str:
        return ago(revision.published_at)

"""The admin of content: templates, their versions, and the editor with its preview."""

import json
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.core.exceptions import PermissionDenied
from django.db.models import Exists, OuterRef, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from common.admin.bases import ModelForm
from common.admin.operations import Operation, OperationsMixin
from common.admin.words import ago, badge, document
from content.exceptions import CannotPublish, RenderError
from content.lint import SAMPLE_CONTEXT, find_problems
from content.models import Template, TemplateVersion
from content.rendering import RenderedEmail, render
from content.services import open_draft, publish_version
from content.webmail import as_webmail

_PUBLISH = "_publish"
_PARTS = ("subject", "preheader", "html", "text")


def _editor(version: TemplateVersion) -> str:
    return reverse("admin:content_templateversion_change", args=[version.pk])


def _open_draft(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> HttpResponse:
    draft = open_draft(Template.objects.get(pk=ids[0]))
    return HttpResponseRedirect(_editor(draft))


@admin.register(Template)
class TemplateAdmin(OperationsMixin[Template]):
    """The mails marketers write. What is sent is the published version."""

    change_form_template = "admin/content/template/change_form.html"
    empty_text = "Write the first mail: it becomes a template with versions."
    list_display = ["name", "key", "published_label", "draft_label"]
    list_select_related = ["published"]
    search_fields = ["name", "key"]
    fields = ["name", "key"]
    operations = (
        Operation(
            name="draft",
            label="Edit the draft",
            icon="edit",
            run=_open_draft,
            when=lambda template: template.has_draft,
            primary=True,
        ),
        Operation(
            name="open-draft",
            label="Open a draft",
            icon="edit",
            run=_open_draft,
            when=lambda template: not template.has_draft,
            primary=True,
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Template]:
        drafts = TemplateVersion.objects.filter(template=OuterRef("pk"), published_at=None)
        return super().get_queryset(request).annotate(has_draft=Exists(drafts))

    def get_readonly_fields(self, request: HttpRequest, obj: Template | None = None) -> list[str]:
        # Files and the API name the template by it.
        return ["key"] if obj is not None else []

    def get_prepopulated_fields(
        self, request: HttpRequest, obj: Template | None = None
    ) -> dict[str, Any]:
        return {} if obj is not None else {"key": ["name"]}

    def has_delete_permission(self, request: HttpRequest, obj: Template | None = None) -> bool:
        # What was sent can always be shown again.
        never_sent = obj is not None and obj.published_id is None
        return never_sent and super().has_delete_permission(request, obj)

    def response_add(
        self, request: HttpRequest, obj: Template, post_url_continue: str | None = None
    ) -> HttpResponse:
        if IS_POPUP_VAR in request.POST:
            return super().response_add(request, obj, post_url_continue)
        return HttpResponseRedirect(_editor(open_draft(obj)))

    @admin.display(description="published")
    def published_label(self, template: Template) -> SafeString:
        if template.published is None:
            return badge("not yet", "amber")
        label = badge(f"version {template.published.number}", "green")
        return format_html("{} {}", label, ago(template.published.published_at))

    @admin.display(description="")
    def draft_label(self, template: Template) -> SafeString | str:
        return badge("draft open", "blue") if getattr(template, "has_draft", False) else ""

    def details(self, request: HttpRequest, row: Template) -> dict[str, Any]:
        versions = row.versions.select_related("published_by").order_by("-number")
        return {
            "headline": row.name,
            "state": badge(f"version {row.published.number}", "green")
            if row.published is not None
            else badge("not published yet", "amber"),
            "lead": "Campaigns send the published version. A draft changes nothing until you "
            "publish it.",
            "versions": versions.defer("html", "text"),
        }


class VersionForm(ModelForm[TemplateVersion]):
    """The draft's wording; on Publish what stands against it is shown at its field."""

    class Meta:
        model = TemplateVersion
        fields: ClassVar[list[str]] = ["subject", "preheader", "html", "text"]
        widgets: ClassVar[dict[str, Any]] = {
            "subject": UnfoldAdminTextInputWidget({"class": "ea-editor"}),
            "preheader": UnfoldAdminTextInputWidget({"class": "ea-editor"}),
            "html": UnfoldAdminTextareaWidget(
                {"class": "ea-editor", "rows": 24, "spellcheck": "false"}
            ),
            "text": UnfoldAdminTextareaWidget(
                {"class": "ea-editor", "rows": 8, "spellcheck": "false"}
            ),
        }

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        if _PUBLISH in self.data and not self.errors:
            for field, problem in find_problems(self.instance):
                self.add_error(field if field in self.fields else None, problem)


@admin.register(TemplateVersion)
class TemplateVersionAdmin(OperationsMixin[TemplateVersion]):
    """One wording: the editor of a draft, or a published version as it stays."""

    form = VersionForm
    change_form_template = "admin/content/templateversion/change_form.html"
    list_display = ["template", "number", "state_label", "subject"]
    list_select_related = ["template"]
    ordering = ("template__name", "-number")

    def has_module_permission(self, request: HttpRequest) -> bool:
        # Versions are reached through their template.
        return False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(
        self, request: HttpRequest, obj: TemplateVersion | None = None
    ) -> bool:
        return (obj is None or obj.published_at is None) and super().has_change_permission(
            request, obj
        )

    def has_delete_permission(
        self, request: HttpRequest, obj: TemplateVersion | None = None
    ) -> bool:
        is_draft = obj is not None and obj.published_at is None
        return is_draft and super().has_delete_permission(request, obj)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.preview_view)
        return [
            path("<int:pk>/preview/", view, name="content_templateversion_preview"),
            *super().get_urls(),
        ]

    def response_change(self, request: HttpRequest, obj: TemplateVersion) -> HttpResponse:
        if _PUBLISH in request.POST:
            try:
                publish_version(obj, by=request.user)  # type: ignore[arg-type]
            except CannotPublish as refusal:
                messages.error(request, str(refusal))
            else:
                messages.success(request, f"Published. From now on version {obj.number} is sent.")
        else:
            messages.success(request, "Draft saved. What is sent stays as it is until you publish.")
        return HttpResponseRedirect(_editor(obj))

    def response_delete(self, request: HttpRequest, obj_display: str, obj_id: int) -> HttpResponse:
        messages.success(request, "The draft is thrown away.")
        return HttpResponseRedirect(reverse("admin:content_template_changelist"))

    def preview_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The version over sample data. On POST: the wording and the data in the form, unsaved."""
        version = TemplateVersion.objects.select_related("template").filter(pk=pk).first()
        if version is None:
            raise Http404
        if not self.has_view_permission(request, version):
            raise PermissionDenied
        sample = SAMPLE_CONTEXT
        try:
            if request.method == "POST":
                version = TemplateVersion(**{part: request.POST.get(part, "") for part in _PARTS})
                sample = _sample(request.POST.get("sample", ""))
            rendered, problem = render(version, sample), ""
        except RenderError as error:
            rendered, problem = None, str(error)
        if request.POST.get("part") == "head":
            return _head(rendered, problem)
        return document(as_webmail(rendered.html) if rendered is not None else _sorry(problem))

    @admin.display(description="state")
    def state_label(self, version: TemplateVersion) -> SafeString:
        return badge("draft", "blue") if version.published_at is None else badge("published")

    def details(self, request: HttpRequest, row: TemplateVersion) -> dict[str, Any]:
        is_live = row.template.published_id == row.pk
        rendered, problem = None, ""
        try:
            rendered = render(row, SAMPLE_CONTEXT)
        except RenderError as error:
            problem = str(error)
        return {
            "headline": row.template.name,
            "state": badge(f"version {row.number}, is sent", "green")
            if is_live
            else badge(f"version {row.number}, draft", "blue")
            if row.published_at is None
            else badge(f"version {row.number}"),
            "sample": json.dumps(SAMPLE_CONTEXT, indent=2, ensure_ascii=False),
            "rendered": rendered,
            "problem": problem,
        }


def _sample(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text or "{}")
    except ValueError as error:
        raise RenderError(f"The sample data is not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise RenderError("The sample data is not a JSON object.")
    return data


def _head(rendered: RenderedEmail | None, problem: str) -> JsonResponse:
    subject, text = (rendered.subject, rendered.text) if rendered is not None else ("", "")
    return JsonResponse({"subject": subject, "text": text, "problem": problem})


def _sorry(problem: str) -> str:
    style = "font: 15px/1.5 system-ui, sans-serif; color: #b91c1c; margin: 2rem"
    return f'<p style="{style}">{escape(problem)}</p>'

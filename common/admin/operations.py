"""Buttons and list actions that ask first, act on POST, and are written to the log."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeVar

from django import forms
from django.contrib import messages
from django.contrib.admin import helpers
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import quote, unquote
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from common.admin.bases import ModelAdmin

M = TypeVar("M", bound=Model)

_LOGGED_AT_ONCE = 1_000


class Refused(Exception):
    """An operation did not happen; `args` are the sentences that say why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A button on a row's page and, if `bulk`, an action on the list.

    It runs on POST only. `run` gets the request, the primary keys and the form's data, calls one
    domain function and returns the sentence to show, or a response of its own. With a `question`
    or a `form` a page asks first; `when` says on which rows' pages the button stands, the domain
    function decides what it moves.
    """

    name: str
    label: str
    run: Callable[[HttpRequest, list[Any], dict[str, Any]], str | HttpResponse]
    icon: str = "play_arrow"
    question: str = ""
    form: type[forms.Form] | None = None
    when: Callable[[Any], bool] = lambda _row: True
    danger: bool = False
    primary: bool = False
    bulk: bool = False
    permission: str = "change"

    @property
    def asks(self) -> bool:
        return bool(self.question or self.form)


class OperationsMixin(ModelAdmin[M]):
    """Puts `operations` on the page of a row and into the list's actions."""

    operations: ClassVar[Sequence[Operation]] = ()

    def may_operate(self, request: HttpRequest, operation: Operation) -> bool:
        """Whether the user has the permission, also where nobody may edit by hand."""
        codename = get_permission_codename(operation.permission, self.opts)
        return bool(request.user.has_perm(f"{self.opts.app_label}.{codename}"))

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.operation_view)
        name = f"{self.opts.app_label}_{self.opts.model_name}_do"
        return [path("<path:object_id>/do/<slug:name>/", view, name=name), *super().get_urls()]

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions: dict[str, Any] = super().get_actions(request)
        for operation in self.operations:
            if operation.bulk and self.may_operate(request, operation):
                action = partial(_operate_on_list, operation=operation)
                actions[operation.name] = (action, operation.name, operation.label)
        return actions

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        row = context.get("original")
        if row is not None:
            offered = [o for o in self.operations if o.when(row) and self.may_operate(request, o)]
            context |= {"operations": offered, **self.details(request, row)}
        return super().render_change_form(request, context, *args, **kwargs)

    def details(self, request: HttpRequest, row: M) -> dict[str, Any]:
        """What the template of the row's page shows besides the row."""
        return {}

    def operation_view(self, request: HttpRequest, object_id: str, name: str) -> HttpResponse:
        """`…/<id>/do/<name>/`: asks on GET, acts on POST."""
        operation = next((o for o in self.operations if o.name == name), None)
        row = self.get_object(request, unquote(object_id))
        if operation is None or row is None:
            raise Http404
        if not self.may_operate(request, operation):
            raise PermissionDenied
        page = reverse(
            f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=[quote(row.pk)]
        )
        if not operation.when(row):
            messages.error(request, f"“{operation.label}” is not possible in its present state.")
            return HttpResponseRedirect(page)
        return self.operate(request, operation, [row.pk], back=page, original=row)

    def operate(
        self,
        request: HttpRequest,
        operation: Operation,
        ids: list[Any],
        *,
        back: str,
        original: M | None = None,
    ) -> HttpResponse:
        """Run the operation, or the page that asks for what it still needs."""
        confirmed = request.method == "POST" and (not operation.asks or "confirmed" in request.POST)
        form = operation.form(request.POST if confirmed else None) if operation.form else None
        if not confirmed or (form is not None and not form.is_valid()):
            return self._ask(request, operation, ids, back, original, form)
        try:
            outcome = operation.run(request, ids, form.cleaned_data if form is not None else {})
        except Refused as refusal:
            for sentence in refusal.args:
                messages.error(request, sentence)
            return HttpResponseRedirect(back)
        self._write_log(request, operation, ids)
        if isinstance(outcome, HttpResponse):
            return outcome
        messages.success(request, outcome)
        return HttpResponseRedirect(back)

    def _ask(
        self,
        request: HttpRequest,
        operation: Operation,
        ids: list[Any],
        back: str,
        original: M | None,
        form: forms.Form | None,
    ) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": operation.label,
            "opts": self.opts,
            "original": original,
            "subject": self.details(request, original).get("headline") if original else "",
            "operation": operation,
            "count": len(ids),
            "form": form,
            "back": back,
            "selected": request.POST.getlist(helpers.ACTION_CHECKBOX_NAME),
            "select_across": request.POST.get("select_across", ""),
        }
        return TemplateResponse(request, "admin/operation.html", context)

    def _write_log(self, request: HttpRequest, operation: Operation, ids: list[Any]) -> None:
        user = request.user.pk
        assert user is not None  # the admin lets nobody else in
        for start in range(0, len(ids), _LOGGED_AT_ONCE):
            rows = self.model._default_manager.filter(pk__in=ids[start : start + _LOGGED_AT_ONCE])
            LogEntry.objects.log_actions(user, rows, CHANGE, operation.label)


def _operate_on_list(
    model_admin: OperationsMixin[Any],
    request: HttpRequest,
    rows: QuerySet[Any],
    *,
    operation: Operation,
) -> HttpResponse:
    ids = list(rows.order_by().values_list("pk", flat=True))
    return model_admin.operate(request, operation, ids, back=request.get_full_path())

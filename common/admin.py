"""What every admin page shares: records nobody edits, buttons that ask first, words for times and
states, and documents that cannot do anything.

`ModelAdmin` and the inlines are unfold's; type checkers see Django's, from which unfold derives.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from django import forms
from django.contrib import messages
from django.contrib.admin import SimpleListFilter, helpers
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import quote, unquote
from django.contrib.admin.views.main import ORDER_VAR, PAGE_VAR
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import connection
from django.db.models import Model, QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    QueryDict,
)
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from common.clock import now

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin, StackedInline, TabularInline
    from django.contrib.admin.views.main import ChangeList
    from django.forms import ModelForm

    _Paginator = Paginator[Any]
else:
    import unfold.admin
    from django.db.models import JSONField, TextField
    from unfold.views import ChangeList
    from unfold.widgets import UnfoldAdminExpandableTextareaWidget

    # Django's stubs make these generic, Django itself does not.
    class ModelAdmin(unfold.admin.ModelAdmin):
        __class_getitem__ = classmethod(lambda cls, _models: cls)
        formfield_overrides = {
            TextField: {"widget": UnfoldAdminExpandableTextareaWidget},
            JSONField: {"widget": UnfoldAdminExpandableTextareaWidget({"class": "ea-editor"})},
        }

    class StackedInline(unfold.admin.StackedInline):
        __class_getitem__ = classmethod(lambda cls, _models: cls)

    class TabularInline(unfold.admin.TabularInline):
        __class_getitem__ = classmethod(lambda cls, _models: cls)

    class ModelForm(forms.ModelForm):
        __class_getitem__ = classmethod(lambda cls, _model: cls)

    _Paginator = Paginator


M = TypeVar("M", bound=Model)

_DOCUMENT_POLICY = (
    "default-src 'none'; img-src * data:; style-src 'unsafe-inline'; form-action 'none'; "
    "frame-ancestors 'self'; sandbox{popups}"
)
_POPUPS = " allow-popups allow-popups-to-escape-sandbox"
_LOGGED_AT_ONCE = 1_000
_SKIP_SCAN = """
    WITH RECURSIVE used (value) AS (
        (SELECT {column} FROM {table} ORDER BY {column} LIMIT 1)
        UNION ALL
        SELECT (SELECT {column} FROM {table} WHERE {column} > used.value
                ORDER BY {column} LIMIT 1)
        FROM used WHERE used.value IS NOT NULL)
    SELECT value FROM used WHERE value <> '' LIMIT 200
"""


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
        return bool(request.user.has_perm(f"{self.opts.app_label}.{codename}"))  # type: ignore[union-attr]

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
        for start in range(0, len(ids), _LOGGED_AT_ONCE):
            rows = self.model._default_manager.filter(pk__in=ids[start : start + _LOGGED_AT_ONCE])
            LogEntry.objects.log_actions(request.user.pk, rows, CHANGE, operation.label)


def _operate_on_list(
    model_admin: OperationsMixin[Any],
    request: HttpRequest,
    rows: QuerySet[Any],
    *,
    operation: Operation,
) -> HttpResponse:
    ids = list(rows.order_by().values_list("pk", flat=True))
    return model_admin.operate(request, operation, ids, back=request.get_full_path())


class CappedPaginator(_Paginator):
    """Counts no further than `limit`: counting a log of millions takes longer than reading it."""

    limit = 10_000

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by()[: self.limit].count())


class _RecordList(ChangeList):
    """Without a filter what was counted is all there is, so the page offers no "show all"."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if request.GET.keys() <= {PAGE_VAR, ORDER_VAR}:
            self.full_result_count = self.result_count


class RecordAdmin(OperationsMixin[M]):
    """Rows the machinery writes: they are read, searched and operated on, never edited."""

    change_form_template = "admin/record.html"
    paginator = CappedPaginator
    show_full_result_count = False
    list_per_page = 50
    ordering: Sequence[str] = ("-pk",)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return _RecordList

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        return False

    def get_fields(self, request: HttpRequest, obj: M | None = None) -> list[str]:
        # The page's template shows what matters; the form behind it stays empty.
        return [self.opts.pk.name]


class KeyFilter(SimpleListFilter):
    """The values in use of an indexed text column, by an index skip scan: DISTINCT, which Django's
    own filter uses, reads the whole table. Name the model and the column in a subclass."""

    model: ClassVar[type[Model]]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        values = {
            "table": connection.ops.quote_name(self.model._meta.db_table),
            "column": connection.ops.quote_name(self.parameter_name or ""),
        }
        with connection.cursor() as cursor:
            cursor.execute(_SKIP_SCAN.format(**values))
            return [(value, value) for (value,) in cursor.fetchall()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[M]) -> QuerySet[M]:
        return queryset.filter(**{str(self.parameter_name): self.value()} if self.value() else {})


# --- Words ---------------------------------------------------------------------------------


def badge(text: object, tone: str = "grey") -> SafeString:
    """A coloured label; tones: green, blue, amber, red, grey."""
    return format_html('<span class="ea-badge ea-{}">{}</span>', tone, text)


def link(url: str, text: object) -> SafeString:
    """A link inside the admin."""
    return format_html('<a class="ea-link" href="{}">{}</a>', url, text)


def query(values: Mapping[str, object]) -> str:
    """`?a=1&b=2` for a link into a filtered list."""
    parameters = QueryDict(mutable=True)
    for name, value in values.items():
        parameters[name] = str(value)
    return f"?{parameters.urlencode()}"


def ago(moment: datetime | None) -> SafeString | str:
    """`5 min ago`, `in 3 h`, `21 Nov, 14:05`; the exact time stands in the tooltip."""
    if moment is None:
        return "–"
    exact = moment.strftime("%Y-%m-%d %H:%M:%S UTC")
    return format_html('<time class="ea-time" title="{}">{}</time>', exact, _about(moment))


def _about(moment: datetime) -> str:
    distance = now() - moment
    size = abs(distance)
    words = next(
        (
            f"{max(size // unit, 1)} {name}"
            for limit, unit, name in (
                (timedelta(minutes=1), timedelta(seconds=1), "s"),
                (timedelta(hours=1), timedelta(minutes=1), "min"),
                (timedelta(days=1), timedelta(hours=1), "h"),
            )
            if size < limit
        ),
        "",
    )
    if words:
        return f"{words} ago" if distance > timedelta() else f"in {words}"
    same_year = moment.year == now().year
    return f"{moment.day} {moment:%b, %H:%M}" if same_year else f"{moment.day} {moment:%b %Y}"


def pretty(value: object) -> SafeString:
    """JSON, indented, escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return format_html('<pre class="ea-code">{}</pre>', text)


def document(html: str, *, popups: bool = False) -> HttpResponse:
    """Somebody else's HTML as a page of its own: no script, no form, no origin, framed only by
    us. `popups` lets its links open in a new tab."""
    response = HttpResponse(html)
    response["Content-Security-Policy"] = _DOCUMENT_POLICY.format(popups=_POPUPS if popups else "")
    response["X-Frame-Options"] = "SAMEORIGIN"
    response["Referrer-Policy"] = "no-referrer"
    response["Cache-Control"] = "no-store"
    return response

"""Lists of what the machinery writes: read, searched, filtered, operated on, never edited."""

from functools import cached_property
from typing import Any, ClassVar, TypeVar

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.views.main import ORDER_VAR, PAGE_VAR, ChangeList
from django.db import connection
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from common.admin.bases import Paginator
from common.admin.operations import OperationsMixin

M = TypeVar("M", bound=Model)

_SKIP_SCAN = """
    WITH RECURSIVE used (value) AS (
        (SELECT {column} FROM {table} ORDER BY {column} LIMIT 1)
        UNION ALL
        SELECT (SELECT {column} FROM {table} WHERE {column} > used.value
                ORDER BY {column} LIMIT 1)
        FROM used WHERE used.value IS NOT NULL)
    SELECT value FROM used WHERE value <> '' LIMIT 200
"""


class CappedPaginator(Paginator):
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
    ordering = ("-pk",)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return _RecordList

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        return False

    def get_fields(self, request: HttpRequest, obj: M | None = None) -> Any:
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

"""Warm-ups and their plans."""

from itertools import pairwise
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminTextInputWidget

from common.admin.bases import ModelAdmin, ModelForm
from common.admin.operations import OperationsMixin
from common.admin.words import badge
from delivery.models import Warmup, WarmupPlan
from delivery.warmup import Progress, progress_of

_CHART_HEIGHT, _BAR, _GAP = 60, 14, 6


class WarmupPlanForm(ModelForm[WarmupPlan]):
    """A plan only ever climbs."""

    def clean_days(self) -> list[int]:
        days: list[int] = self.cleaned_data["days"]
        if any(later < day for day, later in pairwise(days)):
            raise forms.ValidationError("A day must not allow less than the one before.")
        if not days or days[0] < 1:
            raise forms.ValidationError("The first day has to allow at least one mail.")
        return days


@admin.register(WarmupPlan)
class WarmupPlanAdmin(ModelAdmin[WarmupPlan]):
    """How much on which day."""

    form = WarmupPlanForm
    list_display = ["name", "key", "first", "last", "length"]
    search_fields = ["name", "key"]

    @admin.display(description="first day")
    def first(self, plan: WarmupPlan) -> str:
        return f"{plan.days[0]:,}"

    @admin.display(description="last day")
    def last(self, plan: WarmupPlan) -> str:
        return f"{plan.days[-1]:,}"

    @admin.display(description="days")
    def length(self, plan: WarmupPlan) -> int:
        return len(plan.days)


class WarmupForm(ModelForm[Warmup]):
    """A domain as senders' addresses have it."""

    class Meta:
        model = Warmup
        fields = "__all__"
        widgets: ClassVar[dict[str, Any]] = {
            "domain": UnfoldAdminTextInputWidget({"placeholder": "news.example.com"})
        }

    def clean_domain(self) -> str:
        domain: str = self.cleaned_data["domain"].strip().lower()
        if "." not in domain or "@" in domain or ":" in domain:
            raise forms.ValidationError("A domain, such as news.example.com.")
        return domain


@admin.register(Warmup)
class WarmupAdmin(OperationsMixin[Warmup]):
    """Domains that mailbox providers are being got used to."""

    form = WarmupForm
    change_form_template = "admin/delivery/warmup/change_form.html"
    empty_text = "A new sending domain or address? Let it climb slowly, or it lands in spam."
    list_display = ["domain", "provider", "plan", "state"]
    list_select_related = ["provider", "plan"]
    search_fields = ["domain"]
    fields = ["domain", "provider", "plan", "is_active"]

    @admin.display(description="state")
    def state(self, warmup: Warmup) -> SafeString:
        return badge("warming up", "blue") if warmup.is_active else badge("off")

    def details(self, request: HttpRequest, row: Warmup) -> dict[str, Any]:
        days = row.plan.days
        charts = [_chart(progress, len(days)) for progress in progress_of(row)]
        return {"state": self.state(row), "charts": charts, "chart_height": _CHART_HEIGHT}


def _chart(progress: Progress, length: int) -> dict[str, Any]:
    highest = max((max(bar.most, bar.used) for bar in progress.bars), default=0) or 1
    bars = []
    for n, bar in enumerate(progress.bars):
        most, used = (round(_CHART_HEIGHT * count / highest) for count in (bar.most, bar.used))
        bars.append(
            {
                "x": n * (_BAR + _GAP),
                "width": _BAR,
                "plan": {"y": _CHART_HEIGHT - most, "height": most},
                "real": {"y": _CHART_HEIGHT - used, "height": used},
                "words": f"{bar.day:%d %b}: {bar.used:,} of {bar.most:,}",
            }
        )
    is_warm = progress.stage > length
    return {
        "mailboxes": progress.mailboxes,
        "stage": "warm: no limit" if is_warm else f"day {progress.stage} of {length}",
        "note": progress.note,
        "bars": bars,
        "width": len(bars) * (_BAR + _GAP),
        "latest": bars[-1]["words"] if bars else "",
    }

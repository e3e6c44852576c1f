"""The admin of suppressions: who must not be mailed, how far, and why."""

import contextlib
from collections.abc import Callable
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import localtime
from unfold.widgets import (
    UnfoldAdminExpandableTextareaWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from common.addresses import Address, InvalidAddress, address_hash, parse_address
from common.admin.bases import ModelAdmin, ModelForm
from common.admin.records import RecordAdmin
from common.admin.words import ago, badge
from suppression.models import Suppression
from suppression.services import SuppressionRequest, suppress_addresses
from suppression.states import ALL, MARKETING, SuppressionReason, scope_in_words

_TONES: dict[str, str] = {
    SuppressionReason.COMPLAINT: "red",
    SuppressionReason.ERASURE: "red",
    SuppressionReason.UNSUBSCRIBE: "amber",
    SuppressionReason.HARD_BOUNCE: "amber",
    SuppressionReason.MANUAL: "blue",
    SuppressionReason.SOFT_LIMIT: "blue",
}


# Rooms above add the scopes they know (contacts: its topics); suppression imports none of them.
more_scopes: list[Callable[[], list[tuple[str, str]]]] = []


def scope_choices() -> list[tuple[str, str]]:
    """Every scope an address can be suppressed in, with words for it."""
    return [
        (MARKETING, "marketing mail"),
        *(choice for scopes in more_scopes for choice in scopes()),
        (ALL, "mail of any kind, receipts and password resets included"),
    ]


class AddSuppressionForm(ModelForm[Suppression]):
    """An address, how far, and who asked for it."""

    address = forms.CharField(label="E-mail address", widget=UnfoldAdminTextInputWidget())
    reach = forms.ChoiceField(
        label="No more", choices=scope_choices, widget=UnfoldAdminSelectWidget()
    )
    why = forms.CharField(
        label="Evidence",
        widget=UnfoldAdminExpandableTextareaWidget(),
        help_text="Who asked for it, and when?",
    )

    class Meta:
        model = Suppression
        fields: ClassVar[list[str]] = []

    def clean_address(self) -> Address:
        try:
            return parse_address(self.cleaned_data["address"])
        except InvalidAddress as error:
            raise forms.ValidationError(str(error)) from None


@admin.register(Suppression)
class SuppressionAdmin(RecordAdmin[Suppression]):
    """Looked up by address, also where only its hash is left."""

    change_form_template = "admin/suppression/suppression/change_form.html"
    list_display = ["address", "reach", "reason_label", "source", "since"]
    list_filter = ["reason"]
    search_fields = ["email"]
    search_help_text = "E-mail address, erased ones too"
    empty_text = "Nobody has unsubscribed, complained or bounced."

    def has_add_permission(self, request: HttpRequest) -> bool:
        return ModelAdmin.has_add_permission(self, request)

    def has_delete_permission(self, request: HttpRequest, obj: Suppression | None = None) -> bool:
        # Mailing somebody who said no is the one mistake that cannot be taken back.
        return bool(request.user.is_superuser)

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        if obj is None:
            return AddSuppressionForm
        return super().get_form(request, obj, change, **kwargs)

    def get_fields(self, request: HttpRequest, obj: Suppression | None = None) -> Any:
        return ["address", "reach", "why"] if obj is None else super().get_fields(request, obj)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Suppression], search_term: str
    ) -> tuple[QuerySet[Suppression], bool]:
        term = search_term.strip().replace("\x00", "")
        if not term:
            return queryset, False
        wanted = Q(email__icontains=term)
        with contextlib.suppress(InvalidAddress):
            wanted |= Q(address_hash=address_hash(parse_address(term).normalized))
        return queryset.filter(wanted), False

    def save_model(
        self, request: HttpRequest, obj: Suppression, form: ModelForm[Suppression], change: bool
    ) -> None:
        data = form.cleaned_data
        wanted = SuppressionRequest(
            data["address"],
            data["reach"],
            SuppressionReason.MANUAL,
            source=f"admin: {request.user.get_username()}",
            evidence=data["why"],
        )
        suppress_addresses([wanted])
        digest = address_hash(data["address"].normalized)
        obj.pk = Suppression.objects.get(address_hash=digest, scope=data["reach"]).pk

    @admin.display(description="address", ordering="email")
    def address(self, row: Suppression) -> SafeString:
        if row.email:
            return format_html('<span class="ea-strong">{}</span>', row.email)
        return format_html('<span class="ea-faint">{}</span>', "erased, kept as a hash")

    @admin.display(description="gets no", ordering="scope")
    def reach(self, row: Suppression) -> str:
        return scope_in_words(row.scope)

    @admin.display(description="because", ordering="reason")
    def reason_label(self, row: Suppression) -> SafeString:
        return badge(row.get_reason_display(), _TONES[row.reason])

    @admin.display(description="since", ordering="pk")
    def since(self, row: Suppression) -> SafeString | str:
        return ago(row.created_at)

    def details(self, request: HttpRequest, row: Suppression) -> dict[str, Any]:
        return {
            "headline": row.email or "Erased address",
            "state": self.reason_label(row),
            "lead": f"This address gets no {scope_in_words(row.scope)}{_until(row)}.",
        }


def _until(row: Suppression) -> str:
    return f" until {date_format(localtime(row.expires_at), 'j F Y')}" if row.expires_at else ""

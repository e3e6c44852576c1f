"""The keys of those who post events and read messages."""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import ngettext
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from common.admin.bases import ModelForm
from common.admin.operations import Operation, OperationsMixin, Refused
from common.admin.words import ago, badge
from common.clock import now
from events.models import ApiKey, Scope, default_scopes
from events.services import revoke_keys


class ApiKeyForm(ModelForm[ApiKey]):
    """Name, namespace, scopes, limit, expiry; the key itself is made, never typed."""

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
    fields = ["name", "source", "scopes", "rate_limit", "expires_at"]
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

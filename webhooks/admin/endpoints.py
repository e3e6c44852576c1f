"""The admin of outgoing webhooks: who is told what, and how they answer. Secrets are written, never
read: each is shown once, on the page that made it."""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
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
from webhooks.guard import Denied, place_of
from webhooks.kinds import TYPES
from webhooks.models import EVERY_TYPE, OutgoingDelivery, OutgoingEndpoint
from webhooks.outgoing.services import (
    BY_HAND,
    disable_endpoints,
    drop_previous_secret,
    enable_endpoints,
    give_secret,
    rotate_secret,
    send_test,
)

_CHOICES = [
    (EVERY_TYPE, f"{EVERY_TYPE} · everything, also what is new"),
    *((name, name) for name in TYPES),
]


_FIELDS = ("name", "url", "types", "with_address")


class OutgoingEndpointForm(ModelForm[OutgoingEndpoint]):
    """Where to, and what; the secret is made, never typed."""

    types = forms.MultipleChoiceField(
        label="What it hears",
        choices=_CHOICES,
        initial=[EVERY_TYPE],
        widget=UnfoldAdminCheckboxSelectMultipleWidget(),
    )

    def clean_url(self) -> str:
        """Refused here as far as it can be told without asking the network."""
        url: str = self.cleaned_data["url"]
        try:
            place_of(url)
        except Denied as denied:
            raise forms.ValidationError(str(denied)) from None
        return url


def _enable(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    count = enable_endpoints(ids)
    if not count:
        raise Refused("Nothing was changed: it was on.")
    return ngettext("%d is on again.", "%d are on again.", count) % count


def _disable(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    count = disable_endpoints(ids)
    if not count:
        raise Refused("Nothing was changed: it was off.")
    return ngettext("%d is off.", "%d are off.", count) % count


def _test(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    delivery = send_test(ids[0])
    page = reverse("admin:webhooks_outgoingdelivery_change", args=[delivery.pk])
    return format_html('A test is on its way: <a href="{}">what became of it</a>.', page)


def _drop(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    if not drop_previous_secret(ids[0]):
        raise Refused("Nothing was changed: there was no other secret.")
    return "From now on only the present secret signs."


def _page_of_secret(request: HttpRequest, endpoint: OutgoingEndpoint, secret: str) -> HttpResponse:
    """The page with the secret: it goes into no cookie, no session, no redirect."""
    context = {
        **admin.site.each_context(request),
        "title": "Signing secret",
        "opts": OutgoingEndpoint._meta,
        "endpoint": endpoint,
        "secret": secret,
    }
    return TemplateResponse(request, "admin/webhooks/outgoingendpoint/secret.html", context)


def _rotate(request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> HttpResponse:
    secret = rotate_secret(ids[0])
    return _page_of_secret(request, OutgoingEndpoint.objects.get(pk=ids[0]), secret)


@admin.register(OutgoingEndpoint)
class OutgoingEndpointAdmin(OperationsMixin[OutgoingEndpoint]):
    """Other services that are told what becomes of mail."""

    form = OutgoingEndpointForm
    empty_text = "Add an endpoint for each service that wants to hear of bounces, opens, clicks."
    change_form_template = "admin/operated.html"
    list_before_template = "admin/webhooks/outgoingendpoint/switched_off.html"
    list_display = ["receiver", "hears", "state_label", "last_delivered"]
    search_fields = ["name", "url"]
    fields = _FIELDS
    operations = (
        Operation(
            name="enable",
            label="Switch on",
            icon="power_settings_new",
            run=_enable,
            question="What waits for it is delivered at once; of what happened while it was off "
            "nothing was queued.",
            when=lambda endpoint: not endpoint.is_active,
            primary=True,
            bulk=True,
        ),
        Operation(
            name="test",
            label="Send a test",
            icon="send",
            run=_test,
            when=lambda endpoint: endpoint.is_active,
        ),
        Operation(
            name="rotate",
            label="Replace the secret",
            icon="key",
            run=_rotate,
            question="For 24 hours everything is signed with the old and the new secret; the new "
            "one is shown once.",
        ),
        Operation(
            name="drop",
            label="Drop the old secret",
            icon="key_off",
            run=_drop,
            question="Whoever still verifies with the old secret refuses what we send.",
            when=lambda endpoint: endpoint.signs_twice,
            danger=True,
        ),
        Operation(
            name="disable",
            label="Switch off",
            icon="block",
            run=_disable,
            question="It hears nothing any more. What is queued waits.",
            when=lambda endpoint: endpoint.is_active,
            danger=True,
            bulk=True,
        ),
    )

    @admin.display(description="receiver", ordering="name")
    def receiver(self, endpoint: OutgoingEndpoint) -> SafeString:
        return format_html(
            '<span class="ea-two"><span class="ea-strong">{}</span>'
            '<span class="ea-faint ea-small ea-mono ea-clip">{}</span></span>',
            endpoint.name,
            endpoint.url,
        )

    @admin.display(description="hears")
    def hears(self, endpoint: OutgoingEndpoint) -> str:
        names = "everything" if EVERY_TYPE in endpoint.types else ", ".join(endpoint.types)
        return f"{names}, with addresses" if endpoint.with_address else names

    @admin.display(description="state")
    def state_label(self, endpoint: OutgoingEndpoint) -> SafeString:
        if not endpoint.is_active:
            return badge("off", "grey" if endpoint.disabled_why == BY_HAND else "red")
        return badge("failing", "amber") if endpoint.failures else badge("on", "green")

    @admin.display(description="last delivered", ordering="delivered_at")
    def last_delivered(self, endpoint: OutgoingEndpoint) -> SafeString | str:
        return ago(endpoint.delivered_at) if endpoint.delivered_at else "never"

    def save_model(
        self,
        request: HttpRequest,
        obj: OutgoingEndpoint,
        form: ModelForm[OutgoingEndpoint],
        change: bool,
    ) -> None:
        if change:  # the other columns are the drain's
            obj.save(update_fields=_FIELDS)
            return
        # On the request, which ends with the page that shows it.
        request.new_secret = give_secret(obj)  # type: ignore[attr-defined]
        obj.save()

    def response_add(
        self, request: HttpRequest, obj: OutgoingEndpoint, post_url_continue: str | None = None
    ) -> HttpResponse:
        return _page_of_secret(request, obj, request.new_secret)  # type: ignore[attr-defined]

    def get_deleted_objects(
        self, objs: QuerySet[OutgoingEndpoint] | Sequence[OutgoingEndpoint], request: HttpRequest
    ) -> Any:
        """Its deliveries by their number: there may be a million."""
        ids = [endpoint.pk for endpoint in objs]
        count = OutgoingDelivery.objects.filter(endpoint__in=ids).count()
        counts = {"outgoing webhooks": len(ids), "outgoing deliveries": count}
        return (
            [*map(str, objs), f"What is queued for it, and was told: {count:,}"],
            counts,
            set(),
            [],
        )

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        off = OutgoingEndpoint.objects.filter(is_active=False).exclude(disabled_why=BY_HAND)
        return super().changelist_view(request, {**(extra_context or {}), "switched_off": off})

    def details(self, request: HttpRequest, row: OutgoingEndpoint) -> dict[str, Any]:
        return {
            "headline": row.name,
            "state": self.state_label(row),
            "lead": _lead(row),
            "advice": "Two secrets sign at present." if row.signs_twice else "",
        }


def _lead(endpoint: OutgoingEndpoint) -> SafeString | str:
    if not endpoint.is_active:
        switched = ago(endpoint.disabled_at)
        return format_html("{} It was switched off {}.", endpoint.disabled_why, switched)
    if endpoint.failures:
        first = ago(endpoint.failing_since)
        return format_html(
            "The last {} attempts failed, the first of them {}.", endpoint.failures, first
        )
    return "It is told at once what becomes of mail."

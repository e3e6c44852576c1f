"""Ways out: providers, whose secrets stay in the environment, and senders."""

import os
import re
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.widgets import (
    UnfoldAdminURLInputWidget,
)

from common.addresses import InvalidAddress, parse_address
from common.admin.bases import ModelForm
from common.admin.operations import Operation, OperationsMixin
from common.admin.words import badge
from delivery.models import Provider, Sender, SenderPause, Switch
from delivery.providers import TRAITS
from delivery.routes import RouteError, configured_backend, route_of
from delivery.services import make_default_sender, resume_sending, stop_sending, try_again

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Whoever may edit providers must not be able to have our own secrets sent to a URL of theirs.
_NOT_A_PROVIDERS = frozenset(
    "SECRET_KEY SECRET_KEY_FALLBACKS ADDRESS_HASH_KEY DATABASE_URL REDIS_URL CELERY_BROKER_URL "
    "WEBHOOK_SECRET MAILGUN_WEBHOOK_SIGNING_KEY RESEND_WEBHOOK_SECRET MAILERSEND_WEBHOOK_SECRET "
    "EMAIL_URL RABBITMQ_URL PATH HOME".split()
)
_NOT_A_PROVIDERS_PREFIXES = ("EMAILAUTO_", "KAFKA_", "DJANGO_", "POSTGRES_", "VALKEY_")

_MOST_AT_ONCE = 64
_WHAT_IT_IS = ("key", "backend", "status", "secret_env", "secret", "api_url", "is_active")


class ProviderForm(ModelForm[Provider]):
    """Takes the names of environment variables and refuses what looks like the secret itself."""

    api_url = forms.URLField(
        label="API URL",
        required=False,
        assume_scheme="https",
        widget=UnfoldAdminURLInputWidget(),
        help_text="Empty: the provider's own. SES: its region's, "
        "e.g. https://email.eu-west-1.amazonaws.com.",
    )

    class Meta:
        model = Provider
        fields = "__all__"
        labels: ClassVar[dict[str, str]] = {
            "secret_env": "Secret's variable",
            "is_active": "Active",
            "rate_limit": "Per second",
            "concurrency": "At once",
            "batch_size": "Mails per call",
            "hourly_cap": "Per hour",
            "daily_cap": "Per day",
        }

    def clean_secret_env(self) -> str:
        names = [name.strip() for name in self.cleaned_data["secret_env"].split(",")]
        for name in filter(None, names):
            if not _VARIABLE.fullmatch(name):
                raise forms.ValidationError(
                    "This is the name of an environment variable, e.g. POSTMARK_API_KEY, "
                    "never the secret itself."
                )
            name = name.upper()
            if name in _NOT_A_PROVIDERS or name.startswith(_NOT_A_PROVIDERS_PREFIXES):
                raise forms.ValidationError("This variable belongs to the application itself.")
        return ", ".join(filter(None, names))

    def clean_concurrency(self) -> int:
        concurrency: int = self.cleaned_data["concurrency"]
        if not 1 <= concurrency <= _MOST_AT_ONCE:
            raise forms.ValidationError(f"Between 1 and {_MOST_AT_ONCE}.")
        return concurrency

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        backend, wanted = data.get("backend"), data.get("batch_size") or 0
        if backend == Provider.Backend.CONFIGURED:
            backend = configured_backend()
        traits = TRAITS.get(str(backend))
        most = traits.batch.messages if traits is not None and traits.batch is not None else 1
        if wanted > most:
            self.add_error("batch_size", f"It takes {most} at most in one call.")
        return data


def _stop(request: HttpRequest, ids: list[Any], data: dict[str, Any]) -> str:
    provider = Provider.objects.get(pk=ids[0])
    note = f"by {request.user.get_username()}"
    stop_sending(Switch.Target.PROVIDER, provider.key, note=note)
    return f"Mail through {provider} is held until you switch it on again."


def _resume(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    provider = Provider.objects.get(pk=ids[0])
    released = resume_sending(Switch.Target.PROVIDER, provider.key)
    return f"Mail through {provider} leaves again; held messages released: {released}."


def _try_again(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    provider = Provider.objects.get(pk=ids[0])
    moved = try_again(provider)
    return f"{provider} is tried again at once; messages that waited for it: {moved}."


@admin.register(Provider)
class ProviderAdmin(OperationsMixin[Provider]):
    """A way out. Secrets stay in the environment; here stands the variable's name."""

    form = ProviderForm
    change_form_template = "admin/operated.html"
    list_display = ["key", "kind", "status", "secret", "rate", "pool", "switched"]
    list_select_related = ["circuit"]
    search_fields = ["key"]
    readonly_fields = ["status", "secret"]
    fieldsets = (
        (None, {"fields": _WHAT_IT_IS}),
        (
            "How fast",
            {"fields": ("rate_limit", "concurrency", "batch_size", "hourly_cap", "daily_cap")},
        ),
        ("Which mail", {"fields": ("carries", "regions", "pool", "priority")}),
    )
    operations = (
        Operation(
            name="stop",
            label="Stop sending",
            icon="power_settings_new",
            run=_stop,
            question="Its mail is held from now on, nothing is lost. Other providers go on.",
            when=lambda provider: not provider.is_stopped,
            danger=True,
        ),
        Operation(
            name="resume",
            label="Switch on again",
            icon="power_settings_new",
            run=_resume,
            when=lambda provider: provider.is_stopped,
            primary=True,
        ),
        Operation(
            name="try-again",
            label="Try again now",
            icon="refresh",
            run=_try_again,
            when=lambda provider: _is_open(provider) or bool(provider.refused_domains),
            primary=True,
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Provider]:
        switch = Switch.objects.filter(
            target=Switch.Target.PROVIDER, key=OuterRef("key"), per_hour=None
        )
        refused = SenderPause.objects.filter(provider=OuterRef("pk"), until__gt=Now())
        return (
            super()
            .get_queryset(request)
            .annotate(
                is_stopped=Exists(switch),
                refused_domains=ArraySubquery(refused.order_by("domain").values("domain")),
            )
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Provider | None = None) -> list[str]:
        # The key stands in switches and in messages' history: it is never renamed.
        return [*self.readonly_fields, *(["key"] if obj is not None else [])]

    @admin.display(description="backend", ordering="backend")
    def kind(self, provider: Provider) -> str:
        if provider.backend == Provider.Backend.CONFIGURED:
            return f"As configured: {configured_backend()}"
        return provider.get_backend_display()

    @admin.display(description="at present")
    def status(self, provider: Provider) -> SafeString:
        if provider._state.adding:
            return badge("new")
        if not provider.is_active:
            return badge("inactive")
        try:
            route_of(provider)
        except RouteError as error:
            return badge(error, "red")
        health = provider.health
        if _is_open(provider):
            until = f"{timezone.localtime(health.open_until or health.slow_until):%H:%M:%S}"
            words = "down" if health.open_until else "asked for a pause"
            return format_html(
                '{} <span class="ea-faint">until {}: {}</span>',
                badge(words, "red" if health.open_until else "amber"),
                until,
                health.reason,
            )
        if refused := getattr(provider, "refused_domains", None):
            return format_html(
                '{} <span class="ea-faint">{}</span>',
                badge("does not accept every sender", "amber"),
                ", ".join(refused),
            )
        if provider.backend != Provider.Backend.CONFIGURED:
            return badge("ready", "green")
        return badge(f"ready, delivers to: {configured_backend()}", "green")

    @admin.display(description="secret")
    def secret(self, provider: Provider) -> SafeString:
        name = provider.secret_env
        if not name:
            return format_html('<span class="ea-faint">{}</span>', "none needed or named")
        here = all(os.environ.get(one.strip()) for one in name.split(","))
        words = ("is set", "green") if here else ("is not set in this process", "red")
        return format_html('<span class="ea-mono">{}</span> {}', name, badge(*words))

    @admin.display(description="per second", ordering="rate_limit")
    def rate(self, provider: Provider) -> str:
        return str(provider.rate_limit) if provider.rate_limit else "as configured"

    @admin.display(description="switch")
    def switched(self, provider: Provider) -> SafeString:
        stopped = getattr(provider, "is_stopped", False)
        return badge("stopped", "red") if stopped else badge("on", "green")


def _is_open(provider: Provider) -> bool:
    health = provider.health
    paused = health.slow_until is not None and health.slow_until > timezone.now()
    return health.open_until is not None or paused


class SenderForm(ModelForm[Sender]):
    """Addresses as they are sent from: one each, checked."""

    def clean_email(self) -> str:
        return _address(self.cleaned_data["email"])

    def clean_reply_to(self) -> str:
        reply_to = self.cleaned_data["reply_to"]
        return _address(reply_to) if reply_to else ""


def _address(text: str) -> str:
    try:
        return parse_address(text).email
    except InvalidAddress as error:
        raise forms.ValidationError(str(error)) from None


def _make_default(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    sender = Sender.objects.get(pk=ids[0])
    make_default_sender(sender)
    return f"{sender.name} is the default sender now."


@admin.register(Sender)
class SenderAdmin(OperationsMixin[Sender]):
    """Who a mail comes from, and through which provider."""

    form = SenderForm
    empty_text = "Mail needs somebody it comes from."
    change_form_template = "admin/operated.html"
    list_display = ["name", "email", "reply_to", "provider", "default"]
    list_select_related = ["provider"]
    search_fields = ["name", "email"]
    fields = ["name", "email", "reply_to", "postal_address", "provider"]
    operations = (
        Operation(
            name="make-default",
            label="Make it the default sender",
            icon="star",
            run=_make_default,
            question="Campaigns that name no sender of their own send from it from now on.",
            when=lambda sender: not sender.is_default,
        ),
    )

    @admin.display(description="default", ordering="-is_default")
    def default(self, sender: Sender) -> SafeString | str:
        return badge("default", "green") if sender.is_default else ""

    def save_model(
        self, request: HttpRequest, obj: Sender, form: ModelForm[Sender], change: bool
    ) -> None:
        super().save_model(request, obj, form, change)
        if not Sender.objects.filter(is_default=True).exists():
            make_default_sender(obj)

    def details(self, request: HttpRequest, row: Sender) -> dict[str, Any]:
        return {"state": badge("default", "green") if row.is_default else ""}

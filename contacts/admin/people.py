"""The admin of people: contacts with what they said, and the topics they may hear about."""

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from common.addresses import Address, InvalidAddress, address_hash, mask, parse_address
from common.admin.bases import ModelAdmin, ModelForm, TabularInline
from common.admin.operations import Operation, OperationsMixin, Refused
from common.admin.words import ago, badge, query
from common.clock import now
from contacts.admin import erasures
from contacts.forms import (
    ConsentForm,
    ContactForm,
    ErasureForm,
    SuppressionForm,
    topic_scopes,
)
from contacts.models import Consent, Contact, Subscription, Topic
from contacts.services import record_consent
from contacts.states import ConsentState
from suppression.admin import more_scopes
from suppression.services import SuppressionRequest, suppress_addresses, suppressed_scopes
from suppression.states import ALL, SuppressionReason, scope_in_words

more_scopes.append(topic_scopes)

_SAID: dict[str, tuple[str, str]] = {
    ConsentState.GRANTED: ("granted", "green"),
    ConsentState.WITHDRAWN: ("withdrawn", "red"),
    ConsentState.PENDING: ("to be confirmed", "amber"),
}


def _record_consent(request: HttpRequest, ids: list[Any], data: dict[str, Any]) -> str:
    contact = Contact.objects.get(pk=ids[0])
    source = f"admin: {request.user.get_username()}"
    record_consent(contact, data["topic"], data["state"], source=source, evidence=data["evidence"])
    return f"Recorded: consent to {data['topic']} {data['state']}."


def _suppress(request: HttpRequest, ids: list[Any], data: dict[str, Any]) -> str:
    contact = Contact.objects.get(pk=ids[0])
    if not contact.email_normalized:
        raise Refused("The contact has no address.")
    suppress_addresses(
        [
            SuppressionRequest(
                Address(contact.email, contact.email_normalized),
                data["scope"],
                SuppressionReason.MANUAL,
                source=f"admin: {request.user.get_username()}",
                evidence=data["evidence"],
            )
        ]
    )
    # It travels in a cookie.
    return f"Suppressed for {mask(contact.email)}: {scope_in_words(data['scope'])}."


def _is_known(contact: Contact) -> bool:
    return contact.erased_at is None


class _ReadOnlyInline:
    extra = 0
    hide_title = True
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description="said")
    def said(self, line: Consent | Subscription) -> SafeString:
        return badge(*_SAID[line.state])

    @admin.display(description="when")
    def when(self, line: Consent | Subscription) -> SafeString | str:
        return ago(line.at)


class SubscriptionInline(_ReadOnlyInline, TabularInline[Subscription, Contact]):
    """What counts now, per topic."""

    model = Subscription
    verbose_name_plural = "Subscriptions"
    fields = ["topic", "said", "when"]
    readonly_fields = ["topic", "said", "when"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Subscription]:
        return super().get_queryset(request).select_related("topic").order_by("topic__name")


class ConsentInline(_ReadOnlyInline, TabularInline[Consent, Contact]):
    """Everything they ever said, newest first."""

    model = Consent
    verbose_name_plural = "Consent ledger"
    fields = ["when", "purpose", "topic", "said", "source", "evidence"]
    readonly_fields = ["when", "purpose", "topic", "said", "source", "evidence"]
    per_page = 20

    def get_queryset(self, request: HttpRequest) -> QuerySet[Consent]:
        return super().get_queryset(request).select_related("topic")


@admin.register(Contact)
class ContactAdmin(OperationsMixin[Contact]):
    """People, by what the producers call them and by address."""

    form = ContactForm
    change_form_template = "admin/contacts/contact/change_form.html"
    list_display = ["person", "user_id", "status", "created"]
    list_filter = ["is_active"]
    search_fields = ["name"]
    search_help_text = "E-mail address, user id or name"
    empty_text = "People come in with their first event."
    ordering = ("-pk",)
    list_per_page = 50
    show_full_result_count = False
    fields = [
        *("name", "email", "user_id", "is_active", "attributes"),
        *("locale", "paused_until", "weekly_limit", "do_not_share"),
    ]
    inlines = (SubscriptionInline, ConsentInline)
    operations = (
        Operation(
            name="consent",
            label="Record consent",
            icon="how_to_reg",
            run=_record_consent,
            form=ConsentForm,
            when=_is_known,
        ),
        Operation(
            name="suppress",
            label="Suppress the address",
            icon="block",
            run=_suppress,
            form=SuppressionForm,
            when=lambda contact: bool(contact.email_normalized),
            danger=True,
        ),
        Operation(
            name="export",
            label="Export",
            icon="download",
            run=erasures.export,
            when=_is_known,
        ),
        Operation(
            name="erase",
            label="Erase",
            icon="delete_forever",
            run=erasures.erase,
            form=ErasureForm,
            question="All mail to them stops at once, at every address of theirs. Within minutes "
            "everything that is known of them is gone for good; what stays is a hash of the "
            "address, so that they are never written to again.",
            when=_is_known,
            danger=True,
        ),
    )

    def has_change_permission(self, request: HttpRequest, obj: Contact | None = None) -> bool:
        # There is nobody behind an erased one to write anything about.
        return super().has_change_permission(request, obj) and (obj is None or _is_known(obj))

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        # Deleting the row would leave what is known of the person everywhere else, and nothing
        # that keeps them from being written to again.
        return HttpResponseRedirect(reverse("admin:contacts_contact_do", args=[object_id, "erase"]))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Contact], search_term: str
    ) -> tuple[QuerySet[Contact], bool]:
        term = search_term.strip().replace("\x00", "")
        return (queryset.filter(_matching(term)) if term else queryset), False

    def get_inlines(self, request: HttpRequest, obj: Contact | None) -> Any:
        return self.inlines if obj is not None else ()

    def save_model(
        self, request: HttpRequest, obj: Contact, form: ModelForm[Contact], change: bool
    ) -> None:
        obj.updated_at = now()
        super().save_model(request, obj, form, change)

    @admin.display(description="contact", ordering="name")
    def person(self, contact: Contact) -> SafeString:
        return format_html(
            '<span class="ea-two"><span class="ea-strong">{}</span>'
            '<span class="ea-faint ea-small">{}</span></span>',
            contact.name or contact.email or contact.user_id or contact,
            contact.email or "no address",
        )

    @admin.display(description="status", ordering="is_active")
    def status(self, contact: Contact) -> SafeString:
        if contact.erased_at is not None:
            return badge("erased")
        return badge("active", "green") if contact.is_active else badge("inactive", "amber")

    @admin.display(description="known since", ordering="pk")
    def created(self, contact: Contact) -> SafeString | str:
        return ago(contact.created_at)

    def details(self, request: HttpRequest, row: Contact) -> dict[str, Any]:
        return {
            "headline": row.name or row.email or row.user_id or str(row),
            "state": None if row.is_active else self.status(row),
            "lead": row.email or "No address: no mail can be sent.",
            "scopes": [(scope_in_words(s), s == ALL) for s in sorted(_scopes(row))],
            "links": _links(row),
        }


@admin.register(Topic)
class TopicAdmin(ModelAdmin[Topic]):
    """What marketing mail is about, and what must be on record before it is sent."""

    empty_text = "A topic is what people consent to and unsubscribe from."
    list_display = ["name", "key", "policy", "description"]
    search_fields = ["name", "key"]
    fields = ["name", "key", "description", "policy", "double_opt_in"]

    def get_prepopulated_fields(
        self, request: HttpRequest, obj: Topic | None = None
    ) -> dict[str, Any]:
        return {} if obj is not None else {"key": ["name"]}

    def get_readonly_fields(self, request: HttpRequest, obj: Topic | None = None) -> list[str]:
        # Suppressions and mail headers know the topic by this key.
        return ["key"] if obj is not None else []


def _matching(term: str) -> Q:
    try:
        return Q(email_normalized=parse_address(term).normalized)
    except InvalidAddress:
        return (
            Q(user_id=term) | Q(name__icontains=term) | Q(email_normalized__startswith=term.lower())
        )


def _scopes(contact: Contact) -> frozenset[str]:
    if not contact.email_normalized:
        return frozenset()
    digest = address_hash(contact.email_normalized)
    return suppressed_scopes([digest]).get(digest, frozenset())


def _links(contact: Contact) -> list[tuple[str, str, str]]:
    filters = (
        ("Messages", "mail", "delivery_message", "contact"),
        ("Campaigns", "campaign", "campaigns_enrollment", "contact"),
        ("Events", "bolt", "events_event", "contact_id"),
    )
    return [
        (title, icon, reverse(f"admin:{view}_changelist") + query({field: contact.pk}))
        for title, icon, view, field in filters
    ]

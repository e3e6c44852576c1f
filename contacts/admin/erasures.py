"""The admin of erasures: who asked to be forgotten, how far it is, and until when it has to be."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from common.admin.operations import Operation, Refused
from common.admin.records import RecordAdmin
from common.admin.words import ago, badge
from common.clock import now
from contacts.copies import ask_for_copy, ready_copy
from contacts.dsar import begin_erasure
from contacts.models import Contact, Erasure


def export(request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str | HttpResponse:
    """The copy of what we hold of a contact as a download, or the beginning of making it."""
    contact = Contact.objects.get(pk=ids[0])
    copy = ready_copy(contact)
    if copy is None:
        ask_for_copy(contact, source=f"admin: {request.user.get_username()}")
        return "The copy is being put together. Ask again in a minute to download it."
    response = HttpResponse(bytes(copy.body), content_type="application/json")
    response["Content-Disposition"] = f'attachment; filename="contact-{contact.pk}.json"'
    response["Cache-Control"] = "no-store"
    return response


def erase(request: HttpRequest, ids: list[Any], data: dict[str, Any]) -> str:
    """Begin the erasure of a contact."""
    contact = Contact.objects.get(pk=ids[0])
    source = f"admin: {request.user.get_username()}"
    begin_erasure(contact, source=source, reason=data["reason"])
    return "No mail goes to them any more, and everything else is being erased. See Erasures."


def _try_now(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    if not Erasure.objects.filter(pk__in=ids, finished_at=None).update(next_at=Now()):
        raise Refused("It is done.")
    return "It is tried again within a minute."


class StateFilter(admin.SimpleListFilter):
    """Open or done."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("open", "Open"), ("done", "Done")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Erasure]) -> QuerySet[Erasure]:
        if self.value() not in ("open", "done"):
            return queryset
        return queryset.filter(finished_at__isnull=self.value() == "open")


@admin.register(Erasure)
class ErasureAdmin(RecordAdmin[Erasure]):
    """What people asked for is answered within a month (GDPR 12(3)); this is the queue."""

    change_form_template = "admin/contacts/erasure/change_form.html"
    list_display = ["contact_link", "state_label", "asked", "due", "tries", "tried", "last_error"]
    list_filter = [StateFilter]
    empty_text = "Nobody has asked to be erased."
    operations = (
        Operation(
            name="try-now",
            label="Try now",
            icon="restart_alt",
            run=_try_now,
            when=lambda erasure: erasure.finished_at is None,
            bulk=True,
        ),
    )

    @admin.display(description="contact", ordering="contact")
    def contact_link(self, erasure: Erasure) -> SafeString:
        url = reverse("admin:contacts_contact_change", args=[erasure.contact_id])
        return format_html('<a href="{}">contact {}</a>', url, erasure.contact_id)

    @admin.display(description="state", ordering="finished_at")
    def state_label(self, erasure: Erasure) -> SafeString:
        if erasure.finished_at is not None:
            return badge("erased", "green")
        if erasure.due_at < now():
            return badge("overdue", "red")
        return badge("waits", "amber") if erasure.last_error else badge("open", "blue")

    @admin.display(description="asked", ordering="requested_at")
    def asked(self, erasure: Erasure) -> SafeString | str:
        return ago(erasure.requested_at)

    @admin.display(description="due", ordering="requested_at")
    def due(self, erasure: Erasure) -> SafeString | str:
        return ago(erasure.due_at) if erasure.finished_at is None else "–"

    @admin.display(description="last try", ordering="tried_at")
    def tried(self, erasure: Erasure) -> SafeString | str:
        return ago(erasure.tried_at)

    def details(self, request: HttpRequest, row: Erasure) -> dict[str, Any]:
        return {
            "headline": str(row).capitalize(),
            "state": self.state_label(row),
            "lead": "Nothing is known of them any more but that they were here."
            if row.finished_at is not None
            else "No mail goes to them; the rest goes part by part.",
        }

"""The sandbox inbox: each mail as its recipient would see it."""

from email import message_from_bytes, policy
from email.message import EmailMessage, Message
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.safestring import SafeString

from common.admin.records import RecordAdmin
from common.admin.words import ago, document
from content.webmail import as_webmail
from delivery.models import SandboxMail

_SNIPPET = 110
_SOURCE = 300_000
_BASE = '<base target="_blank">'


@admin.register(SandboxMail)
class SandboxMailAdmin(RecordAdmin[SandboxMail]):
    """A mail client for what was sent into the sandbox."""

    change_form_template = "admin/delivery/sandboxmail/change_form.html"
    list_display = ["mail", "recipient", "received"]
    search_fields = ["to_email", "subject"]
    search_help_text = "Recipient or subject"
    empty_text = "What the sandbox provider takes lands here instead of leaving."

    @admin.display(description="mail")
    def mail(self, mail: SandboxMail) -> SafeString:
        return format_html(
            '<span class="ea-two"><span class="ea-strong">{}</span>'
            '<span class="ea-faint ea-small ea-clip">{}</span></span>',
            mail.subject or "(no subject)",
            _snippet(mail),
        )

    @admin.display(description="to", ordering="to_email")
    def recipient(self, mail: SandboxMail) -> str:
        return mail.to_email

    @admin.display(description="received", ordering="pk")
    def received(self, mail: SandboxMail) -> SafeString | str:
        return ago(mail.received_at)

    def get_urls(self) -> list[URLPattern]:
        as_document = self.admin_site.admin_view(self.document_view)
        as_file = self.admin_site.admin_view(self.eml_view)
        return [
            path("<int:pk>/document/", as_document, name="delivery_sandboxmail_document"),
            path("<int:pk>/mail.eml", as_file, name="delivery_sandboxmail_eml"),
            *super().get_urls(),
        ]

    def document_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The HTML part alone; its links open in a new tab, so that they can be tried."""
        html = _part(_parsed(self._mail(request, pk)), "html") or ""
        return document(_BASE + as_webmail(html), popups=True)

    def eml_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The mail byte for byte, as a file."""
        mail = self._mail(request, pk)
        name = f'attachment; filename="mail-{mail.pk}.eml"'
        return HttpResponse(
            bytes(mail.raw), content_type="message/rfc822", headers={"Content-Disposition": name}
        )

    def details(self, request: HttpRequest, row: SandboxMail) -> dict[str, Any]:
        parsed = _parsed(row)
        return {
            "headline": row.subject or "(no subject)",
            "has_html": _part(parsed, "html") is not None,
            "text": _part(parsed, "plain"),
            "headers": [(name, str(value)) for name, value in parsed.items()],
            "source": bytes(row.raw[:_SOURCE]).decode("utf-8", "replace"),
        }

    def _mail(self, request: HttpRequest, pk: int) -> SandboxMail:
        if not self.has_view_permission(request):
            raise PermissionDenied
        mail = SandboxMail.objects.filter(pk=pk).first()
        if mail is None:
            raise Http404
        return mail


def _parsed(mail: SandboxMail) -> EmailMessage:
    parsed: Message = message_from_bytes(bytes(mail.raw), policy=policy.default)
    assert isinstance(parsed, EmailMessage)  # what policy.default makes
    return parsed


def _part(parsed: EmailMessage, kind: str) -> str | None:
    part = parsed.get_body((kind,))
    if part is None:
        return None
    try:
        return str(part.get_content())
    except LookupError:  # a charset Python does not know
        payload = part.get_payload(decode=True)
        return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""


def _snippet(mail: SandboxMail) -> str:
    text = _part(_parsed(mail), "plain") or ""
    return " ".join(text.split())[:_SNIPPET]

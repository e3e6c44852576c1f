"""Messages and dead letters: what was sent, what was not, why, and what to do about it."""

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import escape, format_html, format_html_join
from django.utils.safestring import SafeString

from common.addresses import InvalidAddress, parse_address
from common.admin.records import KeyFilter, RecordAdmin
from common.admin.words import ago, badge, document, query
from contacts.models import Contact
from content.exceptions import RenderError
from content.rendering import RenderedEmail
from content.webmail import as_webmail
from delivery.admin.resolutions import DISCARD, REPLAY, SEND_IT, THE_PROVIDER_HAS_IT
from delivery.explanations import STATE_TONES, advice_of, sentence_of, timeline_of
from delivery.headers import message_id, uuid_in_message_id
from delivery.models import DeadLetter, LookUp, Message
from delivery.preview import as_sent
from delivery.senders import load_senders
from delivery.silence import silent
from delivery.states import DEAD_LETTER_STATES

_MOST_CONTACTS = 500
_MOST_VISITS = 50

_MARKS = (
    ("delivered_at", "mark_email_read", "Delivered", "ea-on"),
    ("opened_at", "drafts", "Opened", "ea-on"),
    ("clicked_at", "ads_click", "Clicked", "ea-on"),
)
_BAD_MARKS = (
    ("rejected_at", "block", "Rejected by the provider"),
    ("bounced_at", "error", "Bounced"),
    ("complained_at", "report", "Marked as spam"),
    ("unsubscribed_at", "unsubscribe", "Unsubscribed"),
)


class CampaignFilter(KeyFilter):
    """By the key of the campaign a message came from."""

    model = Message
    title = "campaign"
    parameter_name = "origin_campaign"


class SignalFilter(admin.SimpleListFilter):
    """Whether anything has come back about what was taken a day ago."""

    title = "sign of life"
    parameter_name = "signal"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("none", "None after 24 hours")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Message]) -> QuerySet[Message]:
        return queryset.filter(pk__in=silent()) if self.value() == "none" else queryset


class MessageList(RecordAdmin[Message]):
    """What the two lists share."""

    list_select_related = ["contact"]
    search_fields = ["pk"]
    search_help_text = "E-mail address, name, event id or message id"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Message]:
        return super().get_queryset(request).defer("context")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Message], search_term: str
    ) -> tuple[QuerySet[Message], bool]:
        term = search_term.strip().replace("\x00", "")
        return (queryset.filter(_matching(term)) if term else queryset), False

    @admin.display(description="recipient")
    def recipient(self, message: Message) -> SafeString:
        address = message.email or message.contact.email or "no address"
        name = message.contact.name
        if not name:
            return format_html('<span class="ea-strong">{}</span>', address)
        return format_html(
            '<span class="ea-two"><span class="ea-strong">{}</span>'
            '<span class="ea-faint ea-small">{}</span></span>',
            name,
            address,
        )

    @admin.display(description="campaign", ordering="origin_campaign")
    def origin(self, message: Message) -> SafeString:
        return format_html(
            '<span class="ea-two"><span>{}</span><span class="ea-faint ea-small">{}</span></span>',
            message.origin_campaign or "–",
            message.origin_step,
        )

    @admin.display(description="state", ordering="state")
    def state_label(self, message: Message) -> SafeString:
        return badge(message.get_state_display(), STATE_TONES[message.state])

    @admin.display(description="reason")
    def reason_words(self, message: Message) -> str:
        return message.get_reason_display() if message.reason else ""

    @admin.display(description="created", ordering="pk")
    def created(self, message: Message) -> SafeString | str:
        return ago(message.created_at)


@admin.register(Message)
class MessageAdmin(MessageList):
    """Every mail: what became of it and why."""

    change_form_template = "admin/delivery/message/change_form.html"
    list_display = [
        "recipient",
        "origin",
        "state_label",
        "reason_words",
        "created",
        "sent",
        "marks",
    ]
    list_filter = ["state", "stream", "reason", CampaignFilter, SignalFilter]
    empty_text = "A message is made when an event meets a campaign's rule."
    operations = (THE_PROVIDER_HAS_IT, SEND_IT, REPLAY, DISCARD)

    @admin.display(description="sent")
    def sent(self, message: Message) -> SafeString | str:
        return ago(message.sent_at)

    @admin.display(description="came back")
    def marks(self, message: Message) -> SafeString:
        shown = [
            (css if getattr(message, column) else "", title, icon)
            for column, icon, title, css in _MARKS
        ]
        shown += [("ea-bad", t, icon) for column, icon, t in _BAD_MARKS if getattr(message, column)]
        mark = '<span class="material-symbols-outlined {}" title="{}">{}</span>'
        return format_html('<span class="ea-marks">{}</span>', format_html_join("", mark, shown))

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.document_view)
        return [
            path("<uuid:pk>/document/", view, name="delivery_message_document"),
            *super().get_urls(),
        ]

    def document_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """The mail as it was sent, alone in a sandbox."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        message = _with_relations().filter(pk=pk).first()
        if message is None:
            raise Http404
        try:
            return document(as_webmail(as_sent(message).html))
        except RenderError as error:
            return document(f"<p style='font:15px sans-serif'>{escape(error)}</p>")

    def details(self, request: HttpRequest, row: Message) -> dict[str, Any]:
        message = _with_relations().get(pk=row.pk)
        rendered, problem = _rendered(message)
        return {
            "original": message,
            "headline": f"To {message.contact.name or message.email or 'nobody'}",
            "state": badge(message.get_state_display(), STATE_TONES[message.state]),
            "lead": sentence_of(message),
            "advice": advice_of(message),
            "timeline": timeline_of(
                message,
                message.attempt_log.select_related("provider"),
                message.bounces.all(),
                LookUp.objects.filter(message=message),
            ),
            "visits": message.visits.select_related("link")[:_MOST_VISITS],
            "rendered": rendered,
            "problem": problem,
            "message_id": _message_id(message),
            "event_url": reverse("admin:events_event_changelist")
            + query({"event_id": message.origin_event_id}),
        }


@admin.register(DeadLetter)
class DeadLetterAdmin(MessageList):
    """Messages whose delivery failed for good: replay them, or let them rest."""

    list_display = [
        "recipient",
        "origin",
        "state_label",
        "why",
        "tried",
        "created",
    ]
    list_filter = ["reason", "stream", CampaignFilter]
    empty_text = "Good: no message has failed for good."
    operations = (REPLAY, DISCARD)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Message]:
        return super().get_queryset(request).filter(state__in=DEAD_LETTER_STATES)

    @admin.display(description="reason", ordering="reason")
    def why(self, message: Message) -> SafeString:
        return format_html(
            '<span class="ea-two"><span>{}</span><span class="ea-faint ea-small ea-clip" '
            'title="{}">{}</span></span>',
            message.get_reason_display() or "–",
            message.detail,
            message.detail,
        )

    @admin.display(description="attempts", ordering="attempts")
    def tried(self, message: Message) -> int:
        return message.attempts

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        # One page per message: it stays where it is when the replay takes it off this list.
        return HttpResponseRedirect(reverse("admin:delivery_message_change", args=[object_id]))


def _matching(term: str) -> Q:
    """A message id (also inside a Message-ID), an address, else an event id or part of a name."""
    try:
        return Q(pk=uuid_in_message_id(term) or UUID(term))
    except ValueError:
        pass
    try:
        address = parse_address(term).normalized
    except InvalidAddress:
        people = Contact.objects.filter(
            Q(name__icontains=term) | Q(email_normalized__startswith=term.lower())
        )
        known = list(people.values_list("pk", flat=True)[:_MOST_CONTACTS])
        return Q(origin_event_id=term) | Q(contact__in=known)
    owner = Contact.objects.filter(email_normalized=address).values_list("pk", flat=True)
    return Q(email_normalized=address) | Q(contact__in=list(owner))


def _with_relations() -> QuerySet[Message]:
    return Message.objects.select_related(
        "contact", "topic", "sender", "provider", "template_version__template"
    )


def _message_id(message: Message) -> str:
    sender = load_senders([message]).of(message)
    return message_id(message.pk, sender.email.rpartition("@")[2]) if sender is not None else ""


def _rendered(message: Message) -> tuple[RenderedEmail | None, str]:
    try:
        return as_sent(message), ""
    except RenderError as error:
        return None, str(error)

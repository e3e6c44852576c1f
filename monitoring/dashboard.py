"""The admin's first page: what is going on, and what needs somebody. Sixteen queries."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db.models import Count, Q, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest
from django.urls import reverse

from campaigns.models import Campaign, Enrollment
from campaigns.states import CampaignState, EnrollmentState
from common.admin.words import badge, query
from common.clock import now
from common.ids import first_uuid7
from delivery.explanations import STATE_TONES
from delivery.models import Message, Provider, Sender, Switch
from delivery.routes import configured_backend
from delivery.states import DEAD_LETTER_STATES, DUE_STATES, MessageState, Reason
from events.models import Event
from events.states import EventState
from monitoring import waiting
from monitoring.services import SWEEP, idle_seconds
from webhooks.models import BounceMailbox
from webhooks.states import OutgoingState, ReceiptState

_DAY = timedelta(hours=24)
_RECENT = 8
# A worker whose sweep is this late makes no progress.
_LATE_SECONDS = 60.0
# A mail server may be restarted.
_MAILBOX_FAILURES = 3
_MOST_SHOWN = 100
_ON_CAMPAIGNS_PAGES = (Reason.CAMPAIGN_PAUSED, Reason.CAMPAIGN_STOPPED)

Context = dict[str, Any]


def dashboard(request: HttpRequest, context: Context) -> Context:
    """Unfold's DASHBOARD_CALLBACK: live numbers for those who may see messages."""
    if not request.user.has_perm("delivery.view_message"):
        return context
    idle = idle_seconds(SWEEP)
    return {
        **context,
        "day": _day(),
        "attention": _attention(),
        "now_numbers": _now(),
        "campaigns": _campaigns(),
        "recent": _recent(),
        "stops": list(Switch.objects.exclude(reason__in=_ON_CAMPAIGNS_PAGES)),
        "way_out": _way_out(),
        "worker_is_late": idle is None or idle > _LATE_SECONDS,
        "mailbox": _failing_mailbox(),
    }


def dead_letters(request: HttpRequest) -> str:
    """The number next to "Dead letters" in the sidebar; empty when there are none. One query."""
    dead = Message.objects.filter(state__in=DEAD_LETTER_STATES)
    count = dead.order_by()[: _MOST_SHOWN + 1].count()
    if not count:
        return ""
    return f"{_MOST_SHOWN}+" if count > _MOST_SHOWN else str(count)


def _day() -> Context:
    rows = Message.objects.filter(pk__gte=first_uuid7(now() - _DAY))
    counts: Mapping[str, int] = dict(rows.values_list("state").annotate(Count("pk")).order_by())
    total = sum(counts.values())
    return {
        "total": total,
        "parts": [
            {
                "label": state.label,
                "count": counts[state],
                "tone": STATE_TONES[state],
                "percent": 100 * counts[state] / total,
                "url": _list("delivery_message", state__exact=state.value),
            }
            for state in MessageState
            if counts.get(state)
        ],
    }


def _attention() -> list[Context]:
    """What waits for an operator; only what there is."""
    states = (MessageState.UNKNOWN, MessageState.HELD, *DEAD_LETTER_STATES)
    rows = Message.objects.filter(state__in=states)
    counts: Mapping[str, int] = dict(rows.values_list("state").annotate(Count("pk")).order_by())
    found = [
        (
            "unknown: did the provider take them?",
            counts.get(MessageState.UNKNOWN, 0),
            _list("delivery_message", state__exact=MessageState.UNKNOWN.value),
            "ea-care",
        ),
        (
            "held back",
            counts.get(MessageState.HELD, 0),
            _list("delivery_message", state__exact=MessageState.HELD.value),
            "ea-care",
        ),
        (
            "dead letters",
            sum(counts.get(state, 0) for state in DEAD_LETTER_STATES),
            _list("delivery_deadletter"),
            "ea-alarm",
        ),
        (
            "dead events",
            Event.objects.filter(state=EventState.DEAD).count(),
            _list("events_event", state__exact=EventState.DEAD.value),
            "ea-alarm",
        ),
        (
            "dead receipts: feedback that was not applied",
            waiting.receipts()[ReceiptState.DEAD].count,
            _list("webhooks_receipt", state__exact=ReceiptState.DEAD.value),
            "ea-alarm",
        ),
        (
            "dead outgoing deliveries",
            waiting.outgoing_deliveries()[OutgoingState.DEAD].count,
            _list("webhooks_outgoingdelivery", state__exact=OutgoingState.DEAD.value),
            "ea-alarm",
        ),
        (
            "lists at providers not read",
            waiting.lists().failing,
            _list("webhooks_poll"),
            "ea-care",
        ),
    ]
    return [_number(*entry) for entry in found if entry[1]]


def _failing_mailbox() -> BounceMailbox | None:
    """The bounce mailbox while it cannot be read; bounces over SMTP do not arrive meanwhile."""
    mailbox = waiting.mailbox()
    return mailbox if mailbox is not None and mailbox.failures >= _MAILBOX_FAILURES else None


def _now() -> list[Context]:
    pending = Event.objects.filter(state=EventState.PENDING).count()
    due = Message.objects.filter(state__in=DUE_STATES, due_at__lte=Now()).count()
    waiting = Enrollment.objects.filter(state=EnrollmentState.WAITING).count()
    return [
        _number("events pending", pending, _list("events_event", state__exact="pending")),
        _number("messages due", due, _list("delivery_message", state__exact="queued")),
        _number("people waiting", waiting, _list("campaigns_enrollment", state__exact="waiting")),
    ]


def _campaigns() -> QuerySet[Campaign]:
    running = Campaign.objects.filter(state__in=[CampaignState.LIVE, CampaignState.PAUSED])
    inside = Count("enrollments", filter=Q(enrollments__state=EnrollmentState.WAITING))
    return running.annotate(inside=inside).order_by("name")[:_RECENT]


def _recent() -> list[Context]:
    newest = Message.objects.defer("context").select_related("contact").order_by("-pk")[:_RECENT]
    return [
        {
            "message": message,
            "who": message.contact.name or message.email or message.contact.email,
            "state": badge(message.get_state_display(), STATE_TONES[message.state]),
        }
        for message in newest
    ]


def _way_out() -> str:
    """Where the default sender's mail goes, in words."""
    sender = Sender.objects.filter(is_default=True).select_related("provider").first()
    if sender is None:
        return ""
    backend = sender.provider.backend
    kind = configured_backend() if backend == Provider.Backend.CONFIGURED else backend
    return str(kind)


def _number(label: str, count: int, url: str, tone: str = "") -> Context:
    return {"label": label, "count": count, "url": url, "tone": tone}


def _list(view: str, **filters: object) -> str:
    return reverse(f"admin:{view}_changelist") + (query(filters) if filters else "")

"""Campaigns: the draft, what is published, and the buttons between."""

from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from campaigns.admin.draft import RevisionInline, RuleInline, StepInline
from campaigns.exceptions import CannotPublish
from campaigns.flow import flow_of
from campaigns.models import Campaign, Enrollment
from campaigns.services import (
    differs_from_published,
    pause_campaign,
    problems_of,
    publish_campaign,
    resume_campaign,
    stop_campaign,
    waiting_counts,
)
from campaigns.states import CampaignState, EnrollmentState
from common.admin.operations import Operation, OperationsMixin, Refused
from common.admin.words import badge, query
from common.clock import now
from common.ids import first_uuid7
from delivery.models import Message
from delivery.states import MessageState

_PUBLISH = "_publish"
_DAY = timedelta(hours=24)
_NOT_SENT = (MessageState.SKIPPED, MessageState.FAILED, MessageState.DEAD)

_TONES: dict[str, str] = {
    CampaignState.DRAFT: "blue",
    CampaignState.LIVE: "green",
    CampaignState.PAUSED: "amber",
    CampaignState.STOPPED: "grey",
}
_LEADS: dict[str, str] = {
    CampaignState.DRAFT: "Nobody gets anything yet: publish it and it starts.",
    CampaignState.LIVE: "It runs. What you change here counts once you publish it.",
    CampaignState.PAUSED: "Nobody enters and its mail is held. Timers run on.",
    CampaignState.STOPPED: "It was stopped for good.",
}


def _of(ids: list[Any]) -> Campaign:
    return Campaign.objects.get(pk=ids[0])


def _pause(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    if not pause_campaign(_of(ids)):
        raise Refused("Nothing was changed: it does not run.")
    return "Paused: nobody enters, its mail is held."


def _resume(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    if not resume_campaign(_of(ids)):
        raise Refused("Nothing was changed: it is not paused.")
    return "It runs again; held mail leaves."


def _stop(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    if not stop_campaign(_of(ids)):
        raise Refused("Nothing was changed: it does not run.")
    return "Stopped: everybody left it, mail that was waiting is not sent."


@admin.register(Campaign)
class CampaignAdmin(OperationsMixin[Campaign]):
    """The draft is edited here; Publish makes it what runs."""

    change_form_template = "admin/campaigns/campaign/change_form.html"
    list_display = [
        "title",
        "state_label",
        "starts_on",
        "waiting",
        "sent",
        "not_sent",
    ]
    list_filter = ["state", "stream"]
    empty_text = "A campaign says: when this event arrives, do these steps."
    search_fields = ["name", "key"]
    inlines = (RuleInline, StepInline, RevisionInline)
    fieldsets = [
        (
            "Campaign",
            {"fields": [("name", "key"), ("stream", "topic"), "sender", "description"]},
        )
    ]
    operations = (
        Operation(
            name="resume",
            label="Resume",
            icon="play_arrow",
            run=_resume,
            when=lambda campaign: campaign.state == CampaignState.PAUSED,
            primary=True,
        ),
        Operation(
            name="pause",
            label="Pause",
            icon="pause",
            run=_pause,
            when=lambda campaign: campaign.state == CampaignState.LIVE,
        ),
        Operation(
            name="stop",
            label="Stop",
            icon="stop",
            run=_stop,
            question="Everybody inside leaves, mail that waits is not sent, and it can never be "
            "started again. To interrupt it, pause it instead.",
            when=lambda campaign: campaign.state in (CampaignState.LIVE, CampaignState.PAUSED),
            danger=True,
        ),
    )

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.by_key_view)
        return [
            path("by-key/<str:key>/", view, name="campaigns_campaign_by_key"),
            *super().get_urls(),
        ]

    def by_key_view(self, request: HttpRequest, key: str) -> HttpResponse:
        """To the campaign's page: events and messages know it by its key."""
        pk = Campaign.objects.filter(key=key).values_list("pk", flat=True).first()
        if pk is None:
            raise Http404
        return HttpResponseRedirect(reverse("admin:campaigns_campaign_change", args=[pk]))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Campaign]:
        recent = Message.objects.filter(
            pk__gte=first_uuid7(now() - _DAY), origin_campaign=OuterRef("key")
        )
        inside = Enrollment.objects.filter(campaign=OuterRef("pk"), state=EnrollmentState.WAITING)
        return (
            super()
            .get_queryset(request)
            .select_related("published")
            .prefetch_related("rules__event_type", "steps__template", "steps__event_type")
            .annotate(
                n_waiting=_count(inside, "campaign"),
                n_sent=_count(recent.filter(state=MessageState.SENT), "origin_campaign"),
                n_not_sent=_count(recent.filter(state__in=_NOT_SENT), "origin_campaign"),
                n_held=_count(
                    recent.filter(Q(state=MessageState.HELD) | Q(state=MessageState.UNKNOWN)),
                    "origin_campaign",
                ),
            )
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Campaign | None = None) -> list[str]:
        # Messages, events and switches know the campaign by this key.
        return ["key"] if obj is not None and obj.published_id is not None else []

    def get_prepopulated_fields(
        self, request: HttpRequest, obj: Campaign | None = None
    ) -> dict[str, Any]:
        return {} if obj is not None else {"key": ["name"]}

    def get_inlines(self, request: HttpRequest, obj: Campaign | None) -> Any:
        return self.inlines if obj is not None else self.inlines[:2]

    def has_delete_permission(self, request: HttpRequest, obj: Campaign | None = None) -> bool:
        never_ran = obj is not None and obj.published_id is None
        return never_ran and super().has_delete_permission(request, obj)

    def response_change(self, request: HttpRequest, obj: Campaign) -> HttpResponse:
        return self._saved(request, obj) or super().response_change(request, obj)

    def response_add(
        self, request: HttpRequest, obj: Campaign, post_url_continue: str | None = None
    ) -> HttpResponse:
        return self._saved(request, obj) or super().response_add(request, obj, post_url_continue)

    def _saved(self, request: HttpRequest, campaign: Campaign) -> HttpResponse | None:
        if _PUBLISH not in request.POST or not self.has_change_permission(request, campaign):
            return None
        try:
            revision = publish_campaign(campaign, by=request.user)  # type: ignore[arg-type]
        except CannotPublish:
            # The page lists what is missing.
            messages.warning(request, "Saved as a draft, but not published yet.")
        else:
            messages.success(request, f"Published as revision {revision.number}.")
        page = reverse("admin:campaigns_campaign_change", args=[campaign.pk])
        return HttpResponseRedirect(page)

    def details(self, request: HttpRequest, row: Campaign) -> dict[str, Any]:
        rules, steps = list(row.rules.all()), list(row.steps.all())
        waiting = waiting_counts(row)
        return {
            "headline": row.name,
            "state": self.state_label(row),
            "lead": _LEADS[row.state],
            "differs": row.published is not None and differs_from_published(row),
            "problems": problems_of(row, rules, steps),
            "flow": flow_of(rules, steps, waiting),
            "numbers": _numbers(row, sum(waiting.values())),
        }

    @admin.display(description="campaign", ordering="name")
    def title(self, campaign: Campaign) -> SafeString:
        return format_html(
            '<span class="ea-two"><span class="ea-strong">{}</span>'
            '<span class="ea-faint ea-small">{}</span></span>',
            campaign.name,
            campaign.get_stream_display(),
        )

    @admin.display(description="state", ordering="state")
    def state_label(self, campaign: Campaign) -> SafeString:
        label = badge(campaign.get_state_display(), _TONES[campaign.state])
        if campaign.published is None or not differs_from_published(campaign):
            return label
        return format_html("{} {}", label, badge("unpublished changes", "amber"))

    @admin.display(description="starts on")
    def starts_on(self, campaign: Campaign) -> str:
        return ", ".join(sorted({rule.event_type.name for rule in campaign.rules.all()})) or "–"

    @admin.display(description="waiting", ordering="n_waiting")
    def waiting(self, campaign: Campaign) -> int:
        return int(getattr(campaign, "n_waiting", 0))

    @admin.display(description="sent, 24 h", ordering="n_sent")
    def sent(self, campaign: Campaign) -> int:
        return int(getattr(campaign, "n_sent", 0))

    @admin.display(description="not sent, 24 h", ordering="n_not_sent")
    def not_sent(self, campaign: Campaign) -> int:
        return int(getattr(campaign, "n_not_sent", 0))


def _count(rows: QuerySet[Any], field: str) -> Coalesce:
    counted = rows.order_by().values(field).annotate(n=Count("pk")).values("n")
    return Coalesce(Subquery(counted), 0)


def _numbers(campaign: Campaign, waiting: int) -> list[tuple[str, int, str, str]]:
    mails = reverse("admin:delivery_message_changelist")
    people = reverse("admin:campaigns_enrollment_changelist")
    of = {"origin_campaign": campaign.key}
    inside = query({"campaign": campaign.pk, "state__exact": EnrollmentState.WAITING})
    return [
        ("people waiting", waiting, people + inside, ""),
        (
            "sent in 24 h",
            getattr(campaign, "n_sent", 0),
            mails + query({**of, "state__exact": MessageState.SENT}),
            "",
        ),
        ("not sent in 24 h", getattr(campaign, "n_not_sent", 0), mails + query(of), ""),
        (
            "held or unknown",
            getattr(campaign, "n_held", 0),
            mails + query({**of, "state__exact": MessageState.HELD}),
            "ea-care" if getattr(campaign, "n_held", 0) else "",
        ),
    ]

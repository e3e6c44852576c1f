"""The admin of deliveries: what was told to whom, how often it was tried, what was answered."""

import json
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import ngettext

from common.admin.operations import Operation, Refused
from common.admin.records import RecordAdmin
from common.admin.words import ago, badge
from webhooks.models import OutgoingDelivery
from webhooks.outgoing.services import replay_deliveries
from webhooks.states import OutgoingState

_TONES: dict[str, str] = {
    OutgoingState.PENDING: "blue",
    OutgoingState.DELIVERED: "green",
    OutgoingState.DEAD: "red",
    OutgoingState.WITHHELD: "grey",
}
_LEADS: dict[str, str] = {
    OutgoingState.PENDING: "It waits for its next attempt.",
    OutgoingState.DELIVERED: "It was taken.",
    OutgoingState.DEAD: "It was not taken. Replay it once the cause is gone.",
    OutgoingState.WITHHELD: "The person wants nothing about them shared: it was not told.",
}


def _replay(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    count = replay_deliveries(ids)
    if not count:
        raise Refused("Nothing was changed: only dead and delivered ones can be replayed.")
    return ngettext("%d delivery is pending again.", "%d deliveries are pending again.", count) % (
        count
    )


@admin.register(OutgoingDelivery)
class OutgoingDeliveryAdmin(RecordAdmin[OutgoingDelivery]):
    """News on their way to other services."""

    change_form_template = "admin/webhooks/outgoingdelivery/change_form.html"
    list_display = ["told", "endpoint", "state_label", "tries", "answered", "queued"]
    list_filter = ["state", "endpoint"]
    list_select_related = ["endpoint"]
    search_fields = ["=event_id"]
    search_help_text = "The webhook-id"
    empty_text = "News about mail are queued here for each outgoing webhook that wants them."
    operations = (
        Operation(
            name="replay",
            label="Replay",
            icon="replay",
            run=_replay,
            question="Each is sent again under the webhook-id it had, so that a receiver who knows "
            "it may ignore it.",
            when=lambda delivery: delivery.state in (OutgoingState.DEAD, OutgoingState.DELIVERED),
            primary=True,
            bulk=True,
        ),
    )

    @admin.display(description="news")
    def told(self, delivery: OutgoingDelivery) -> SafeString:
        return format_html(
            '<span class="ea-two"><span class="ea-strong">{}</span>'
            '<span class="ea-faint ea-small ea-mono ea-clip">{}</span></span>',
            delivery.type,
            delivery.event_id,
        )

    @admin.display(description="state", ordering="state")
    def state_label(self, delivery: OutgoingDelivery) -> SafeString:
        return badge(delivery.get_state_display(), _TONES[delivery.state])

    @admin.display(description="attempts")
    def tries(self, delivery: OutgoingDelivery) -> int:
        return delivery.attempts

    @admin.display(description="last answer")
    def answered(self, delivery: OutgoingDelivery) -> str:
        return str(delivery.status or delivery.answer[:60] or "–")

    @admin.display(description="queued", ordering="pk")
    def queued(self, delivery: OutgoingDelivery) -> SafeString | str:
        return ago(delivery.created_at)

    def details(self, request: HttpRequest, row: OutgoingDelivery) -> dict[str, Any]:
        return {
            "headline": f"{row.type} for {row.endpoint.name}",
            "state": self.state_label(row),
            "lead": _LEADS[row.state],
            "document": _document(row.body),
        }


def _document(body: str) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None

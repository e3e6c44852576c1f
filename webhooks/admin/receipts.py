"""The admin of receipts: what providers told us, byte for byte, and what was done about it."""

import json
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import ngettext

from common.admin.operations import Operation, Refused
from common.admin.records import KeyFilter, RecordAdmin
from common.admin.words import ago, badge
from suppression.states import scope_in_words
from webhooks.models import Receipt
from webhooks.services import replay_receipts
from webhooks.sources import SOURCES
from webhooks.states import ReceiptState

_SHOWN = 200_000

_TONES: dict[str, str] = {
    ReceiptState.PENDING: "blue",
    ReceiptState.PARKED: "amber",
    ReceiptState.APPLIED: "green",
    ReceiptState.DEAD: "red",
}
_LEADS: dict[str, str] = {
    ReceiptState.PENDING: "It waits to be applied.",
    ReceiptState.PARKED: "No message is known that it is about. What it says of the address is "
    "done; the message is looked for again, for three days.",
    ReceiptState.APPLIED: "It was applied.",
    ReceiptState.DEAD: "It could not be applied. Nothing is lost: replay it once the cause "
    "is gone.",
}


class ProviderFilter(KeyFilter):
    """By the provider that sent it."""

    model = Receipt
    title = "provider"
    parameter_name = "provider"


def _replay(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    count = replay_receipts(ids)
    if not count:
        raise Refused("Nothing was changed: only dead receipts can be replayed.")
    return ngettext("%d receipt is pending again.", "%d receipts are pending again.", count) % count


@admin.register(Receipt)
class ReceiptAdmin(RecordAdmin[Receipt]):
    """Webhook calls that proved to be the provider's."""

    change_form_template = "admin/webhooks/receipt/change_form.html"
    list_display = ["call", "state_label", "effects", "received"]
    list_filter = ["state", ProviderFilter]
    search_fields = ["provider_event_id__exact"]
    search_help_text = "The provider's event id"
    empty_text = "Providers tell about bounces, complaints and opens at /webhooks/<provider>."
    operations = (
        Operation(
            name="replay",
            label="Replay",
            icon="replay",
            run=_replay,
            question="Dead receipts get another five attempts. Applying one twice changes nothing.",
            when=lambda receipt: receipt.state == ReceiptState.DEAD,
            primary=True,
            bulk=True,
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Receipt]:
        # The list shows neither, and a page of them may be megabytes.
        return super().get_queryset(request).defer("body", "error")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Receipt], search_term: str
    ) -> tuple[QuerySet[Receipt], bool]:
        if not search_term.strip():
            return queryset, False
        # Ids are indexed by provider first, so each is looked into.
        found = queryset.filter(
            provider__in=list(SOURCES), provider_event_id=search_term.strip().replace("\x00", "")
        )
        return found, False

    @admin.display(description="receipt")
    def call(self, receipt: Receipt) -> SafeString:
        return format_html(
            '<span class="ea-two"><span class="ea-strong">{}</span>'
            '<span class="ea-faint ea-small ea-mono ea-clip">{}</span></span>',
            receipt.provider,
            receipt.provider_event_id,
        )

    @admin.display(description="state", ordering="state")
    def state_label(self, receipt: Receipt) -> SafeString:
        return badge(receipt.get_state_display(), _TONES[receipt.state])

    @admin.display(description="what it said")
    def effects(self, receipt: Receipt) -> str:
        said = [entry for entry in receipt.outcome if isinstance(entry, dict)]
        return "; ".join(" → ".join(filter(None, _words(entry))) for entry in said)

    @admin.display(description="received", ordering="pk")
    def received(self, receipt: Receipt) -> SafeString | str:
        return ago(receipt.received_at)

    def details(self, request: HttpRequest, row: Receipt) -> dict[str, Any]:
        return {
            "headline": f"Receipt from {row.provider}",
            "state": self.state_label(row),
            "lead": _LEADS[row.state],
            "results": [
                {**entry, "words": _words(entry)}
                for entry in row.outcome
                if isinstance(entry, dict)
            ],
            "body": _readable(bytes(row.body[:_SHOWN])),
        }


def _words(entry: dict[str, Any]) -> tuple[str, str]:
    """What a part of a receipt said, and what was done about it."""
    kind = str(entry.get("kind", ""))
    bounce = f" ({entry['class']})" if entry.get("class") else ""
    return kind + bounce, ", ".join(_effect(str(effect)) for effect in entry.get("effects") or [])


def _effect(effect: str) -> str:
    name, _, value = effect.partition(":")
    if name == "suppressed":
        return f"address suppressed for {scope_in_words(value)}"
    if name == "withdrawn":
        return f"consent to “{value}” withdrawn"
    if name == "no_address":
        return "no address to suppress"
    if name == "outdated":
        return "nothing suppressed: they have asked for mail again since"
    return f"message marked as {effect.removesuffix('_at')}"


def _readable(body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    try:
        shown = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
    # Half of a surrogate pair is valid in JSON, and in no page.
    return shown.encode("utf-8", "backslashreplace").decode()

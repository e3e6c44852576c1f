"""People inside campaigns: where they stand and how they came there."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from campaigns.models import Enrollment
from campaigns.services import (
    replay_parked,
)
from campaigns.states import EnrollmentState, StepKind
from common.admin.operations import Operation, Refused
from common.admin.records import RecordAdmin
from common.admin.words import ago, badge, query


def _replay_parked(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    count = replay_parked(ids)
    if not count:
        raise Refused("Nothing was changed: only parked people can be sent on.")
    return f"Sent on: {count}."


_WAYS: dict[str, str] = {
    EnrollmentState.WAITING: "blue",
    EnrollmentState.FINISHED: "green",
    EnrollmentState.EXITED: "grey",
    EnrollmentState.PARKED: "red",
}


@admin.register(Enrollment)
class EnrollmentAdmin(RecordAdmin[Enrollment]):
    """People and their ways through campaigns."""

    change_form_template = "admin/campaigns/enrollment/change_form.html"
    list_display = ["person", "campaign", "state_label", "place", "entered"]
    list_select_related = ["contact", "campaign"]
    list_filter = ["state", "campaign"]
    operations = (
        Operation(
            name="replay",
            label="Send on",
            icon="replay",
            run=_replay_parked,
            question="They go on where they stood.",
            when=lambda enrollment: enrollment.state == EnrollmentState.PARKED,
            primary=True,
            bulk=True,
        ),
    )

    def has_module_permission(self, request: HttpRequest) -> bool:
        # Reached from a campaign, a contact or a message.
        return False

    @admin.display(description="person")
    def person(self, enrollment: Enrollment) -> SafeString:
        return format_html('<span class="ea-strong">{}</span>', enrollment.contact)

    @admin.display(description="state", ordering="state")
    def state_label(self, enrollment: Enrollment) -> SafeString:
        return badge(enrollment.get_state_display(), _WAYS[enrollment.state])

    @admin.display(description="stands at")
    def place(self, enrollment: Enrollment) -> SafeString | str:
        if enrollment.state != EnrollmentState.WAITING:
            return enrollment.get_exit_reason_display() if enrollment.exit_reason else ""
        return format_html("{}, until {}", enrollment.step_key, ago(enrollment.wake_at))

    @admin.display(description="entered", ordering="pk")
    def entered(self, enrollment: Enrollment) -> SafeString | str:
        return ago(enrollment.created_at)

    def details(self, request: HttpRequest, row: Enrollment) -> dict[str, Any]:
        return {
            "headline": f"{row.contact} in “{row.campaign}”",
            "state": self.state_label(row),
            "runs": [_run(run) for run in row.step_runs.select_related("message")],
            "event_url": reverse("admin:events_event_changelist")
            + query({"event_id": row.event_id}),
        }


_OUTCOMES = {
    "queued": "The mail was queued",
    "event": "The event arrived",
    "timeout": "The event did not arrive in time",
    "elapsed": "The time was over",
    "exit": "Left the campaign",
}


def _run(run: Any) -> dict[str, Any]:
    kinds = dict(StepKind.choices)
    return {
        "key": run.step_key,
        "kind": kinds.get(run.kind, run.kind),
        "outcome": _OUTCOMES.get(run.outcome, run.outcome),
        "message": run.message,
        "at": run.at,
    }

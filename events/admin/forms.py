"""Forms about events: why one is discarded, and the editor of an event type with its schema."""

import json
import re
from typing import Any

from django import forms
from django.forms.fields import InvalidJSONInput
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from common.admin.bases import ModelForm
from common.api import ApiError, decode_json
from events.models import EventType
from events.samples import Trial, try_schema
from events.schema_rules import check_schema
from events.schemas import InvalidSchema

_BYTE = re.compile(r"\(byte (\d+)\)")


class DiscardForm(forms.Form):
    """Why what is discarded will not be needed."""

    note = forms.CharField(
        label="Reason",
        max_length=300,
        widget=UnfoldAdminTextInputWidget(),
        help_text="E.g. the ticket, or the deployment that posted it. It is shown with the event.",
    )


class SchemaField(forms.JSONField):
    """A JSON Schema, shown indented; an error names the line or the place in the schema."""

    widget = UnfoldAdminTextareaWidget({"class": "ea-editor", "rows": 18, "spellcheck": "false"})

    def bound_data(self, data: Any, initial: Any) -> Any:
        # As it was typed: what is wrong with it must not move to another line.
        return InvalidJSONInput(data or "")

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, InvalidJSONInput):
            return value
        return json.dumps(value, indent=2, ensure_ascii=False) if value else ""

    def to_python(self, value: Any) -> Any:
        text = (value or "").strip()
        try:
            return decode_json(text.encode()) if text else {}
        except ApiError as error:
            raise forms.ValidationError(_with_line(text, str(error.detail))) from None

    def validate(self, value: Any) -> None:
        super().validate(value)
        try:
            if value != {}:
                check_schema(value)
        except InvalidSchema as error:
            raise forms.ValidationError(str(error)) from None


def _with_line(text: str, reason: str) -> str:
    """The decoder counts bytes; an author counts lines."""
    byte = _BYTE.search(reason)
    if byte is None:
        return reason
    line = text.encode()[: int(byte[1])].count(b"\n") + 1
    return f"{reason[: byte.start()].rstrip()}, in line {line}."


class EventTypeForm(ModelForm[EventType]):
    """Paths one per line; the profile as attribute → paths; the schema held against what is
    stored.

    `trial` is there when stored events stand against a new schema: the page shows them with a box
    to tick, `save_anyway`.
    """

    schema = SchemaField(
        required=False,
        label="JSON Schema",
        help_text="Empty: any object is accepted. “x-pii”: true marks a personal field, "
        "“x-sensitive”: true one whose value the admin does not show.",
    )
    save_anyway = forms.BooleanField(required=False)
    trial: Trial | None = None
    trial_words = ""

    def clean_profile_paths(self) -> dict[str, list[str]]:
        value = self.cleaned_data["profile_paths"] or {}
        fine = isinstance(value, dict) and all(
            isinstance(paths, list) and all(isinstance(path, str) for path in paths)
            for paths in value.values()
        )
        if not fine:
            raise forms.ValidationError(
                'An object of lists, e.g. {"name": ["payload.name", "payload.user.name"]}.'
            )
        return value

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        name = data.get("name") or self.instance.name
        schema = data.get("schema")
        if not name or not schema or data.get("save_anyway") or "schema" not in self.changed_data:
            return data
        trial = try_schema(name, schema)
        if trial.failed:
            self.trial, self.trial_words = trial, _in_words(trial)
            self.add_error("schema", self.trial_words)
        return data


def _in_words(trial: Trial) -> str:
    """`37 of the last 1,000 stored events would fail.`"""
    return f"{trial.failed:,} of the last {trial.tried:,} stored events would fail."

"""The draft of a campaign as forms: rules with the condition editor, steps with what their kind
needs."""

from typing import Any, ClassVar

from django import forms
from unfold.widgets import UnfoldAdminSelectWidget

from campaigns.models import Rule, Step
from campaigns.states import EXIT, StepKind
from common.admin.bases import ModelForm
from contacts.forms import ConditionField

NEEDS: dict[str, tuple[str, ...]] = {
    StepKind.SEND_EMAIL: ("template",),
    StepKind.DELAY: ("wait_amount", "wait_unit"),
    StepKind.WAIT_FOR_EVENT: (
        "event_type",
        "match_path",
        "wait_amount",
        "wait_unit",
        "on_event",
        "on_timeout",
    ),
    StepKind.EXIT: (),
}
"""The fields that mean something for each kind; steps.js hides the others."""


class RuleForm(ModelForm[Rule]):
    """An event type and its condition."""

    class Meta:
        model = Rule
        fields: ClassVar[list[str]] = ["event_type", "condition", "entry_key_path"]
        field_classes: ClassVar[dict[str, Any]] = {"condition": ConditionField}


class StepForm(ModelForm[Step]):
    """One step. A target may be the key of a later step or `exit`."""

    class Meta:
        model = Step
        fields: ClassVar[list[str]] = [
            "position",
            "key",
            "kind",
            "template",
            "event_type",
            "match_path",
            "wait_amount",
            "wait_unit",
            "on_event",
            "on_timeout",
        ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["position"].required = False
        for name in ("on_event", "on_timeout"):
            self.fields[name].widget.attrs |= {"placeholder": f"the next step, a key, or {EXIT}"}

    def clean_key(self) -> str:
        key: str = self.cleaned_data["key"]
        if key == EXIT:
            raise forms.ValidationError(f"“{EXIT}” is what a target says to leave the campaign.")
        return key

    def clean_position(self) -> int:
        position = self.cleaned_data["position"]
        return position if position is not None else 1

    def clean(self) -> dict[str, Any] | None:
        """Forget what does not belong to the kind, so that it does not come back unseen."""
        data = super().clean() or self.cleaned_data
        needed = NEEDS.get(data.get("kind", ""), ())
        for name in ("template", "event_type", "wait_amount"):
            if name not in needed:
                data[name] = None
        for name in ("match_path", "on_event", "on_timeout"):
            if name not in needed:
                data[name] = ""
        return data


def step_widgets(formfield: Any, name: str) -> Any:
    """The field with what steps.js reads."""
    if name == "kind":
        formfield.widget = UnfoldAdminSelectWidget(
            {"data-needs": ";".join(f"{kind}:{','.join(f)}" for kind, f in NEEDS.items())},
            choices=formfield.choices,
        )
    return formfield

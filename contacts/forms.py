"""Forms about people: the condition editor, a contact's address, consent and suppression."""

import json
from typing import Any, ClassVar

from django import forms
from unfold.widgets import (
    UnfoldAdminExpandableTextareaWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
)

from common.addresses import InvalidAddress, parse_address
from common.admin.bases import ModelForm
from contacts.conditions import UNARY, InvalidCondition, compile_condition
from contacts.models import Contact, Topic
from contacts.states import ConsentState
from suppression.admin import scope_choices
from suppression.states import topic_scope

OPERATOR_WORDS: dict[str, str] = {
    "eq": "is",
    "ne": "is not",
    "gt": "is greater than",
    "gte": "is at least",
    "lt": "is less than",
    "lte": "is at most",
    "in": "is one of",
    "not_in": "is none of",
    "contains": "contains",
    "starts_with": "starts with",
    "exists": "is present",
    "missing": "is missing",
}


class ConditionWidget(forms.Textarea):
    """Rows of path, operator and value, which write the JSON. Without scripts, and for trees of
    more than two levels, the JSON itself."""

    template_name = "contacts/condition.html"

    class Media:
        js: ClassVar[list[str]] = ["contacts/condition.js"]

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        widget = UnfoldAdminTextareaWidget({"rows": 6, "class": "ea-editor"})
        context["widget"]["attrs"] |= widget.attrs
        context["operators"] = OPERATOR_WORDS
        context["unary"] = UNARY
        return context

    def format_value(self, value: Any) -> str:
        text = super().format_value(value) or ""
        try:
            tree = json.loads(text)
        except ValueError:
            return text
        return json.dumps(tree, indent=2, ensure_ascii=False) if tree else ""


class ConditionField(forms.JSONField):
    """A condition tree; an error names the place in the tree."""

    widget = ConditionWidget

    def __init__(self, **kwargs: Any) -> None:
        # The model's form field passes its own widget along.
        help_text = (
            "Fields: user_id, or a path below payload, metadata or contact. Values have a type: "
            'in a list or in JSON, 42 is a number and "42" is text. '
            "What is absent fits nothing but “is missing”."
        )
        given = {"widget": ConditionWidget, "required": False, "help_text": help_text}
        super().__init__(**{**kwargs, **given})

    def clean(self, value: Any) -> Any:
        tree = super().clean(value)
        try:
            compile_condition(tree)
        except InvalidCondition as error:
            raise forms.ValidationError(str(error)) from None
        return tree if tree is not None else {}


def in_words(tree: Any) -> str:
    """A condition as a sentence part: `payload.order.total is at least 100 and …`."""
    if not tree:
        return ""
    if not isinstance(tree, dict):
        return str(tree)
    if "not" in tree:
        return f"not ({in_words(tree['not'])})"
    for kind, joint in (("all", " and "), ("any", " or ")):
        if kind in tree:
            parts = [in_words(child) for child in tree[kind]]
            nested = len(parts) > 1
            return joint.join(
                f"({part})" if nested and (" and " in part or " or " in part) else part
                for part in parts
            )
    operator = str(tree.get("op"))
    words = f"{tree.get('path')} {OPERATOR_WORDS.get(operator, operator)}"
    if operator in UNARY:
        return words
    return f"{words} {json.dumps(tree.get('value'), ensure_ascii=False)}"


class ContactForm(ModelForm[Contact]):
    """The address goes through the same door as an event's, so its normal form always follows."""

    class Meta:
        model = Contact
        fields: ClassVar[list[str]] = ["name", "email", "user_id", "is_active", "attributes"]
        labels: ClassVar[dict[str, str]] = {"email": "E-mail address", "is_active": "Active"}

    def clean_user_id(self) -> str | None:
        return self.cleaned_data["user_id"] or None

    def clean_attributes(self) -> dict[str, Any]:
        attributes = self.cleaned_data["attributes"] or {}
        if not isinstance(attributes, dict):
            raise forms.ValidationError('A JSON object, e.g. {"plan": "pro"}.')
        return attributes

    def clean_email(self) -> str:
        text: str = self.cleaned_data["email"]
        self.instance.email_normalized = None
        if not text.strip():
            return ""
        try:
            address = parse_address(text)
        except InvalidAddress as error:
            raise forms.ValidationError(str(error)) from None
        owners = Contact.objects.filter(email_normalized=address.normalized)
        owner = owners.exclude(pk=self.instance.pk).first()
        if owner is not None:
            raise forms.ValidationError(f"This address belongs to another contact: {owner}.")
        self.instance.email_normalized = address.normalized
        return address.email


class ConsentForm(forms.Form):
    """What a person said about a topic, and how we know."""

    topic = forms.ModelChoiceField(
        Topic.objects.all(), widget=UnfoldAdminSelectWidget(), empty_label=None
    )
    state = forms.ChoiceField(
        label="They",
        choices=[
            (ConsentState.GRANTED, "gave their consent"),
            (ConsentState.WITHDRAWN, "withdrew their consent"),
        ],
        widget=UnfoldAdminSelectWidget(),
    )
    evidence = forms.CharField(
        widget=UnfoldAdminExpandableTextareaWidget(),
        help_text="How do we know? E.g. the ticket, the call, the form with its date.",
    )


class SuppressionForm(forms.Form):
    """How far an address is suppressed, and why."""

    scope = forms.ChoiceField(
        label="No more", choices=scope_choices, widget=UnfoldAdminSelectWidget()
    )
    evidence = forms.CharField(
        widget=UnfoldAdminExpandableTextareaWidget(),
        help_text="Who asked for it, and when?",
    )


class ErasureForm(forms.Form):
    """Why somebody is erased from the admin."""

    reason = forms.CharField(
        max_length=300,
        widget=UnfoldAdminExpandableTextareaWidget(),
        help_text="How did they ask, and when? It is erased with the rest.",
    )


def topic_scopes() -> list[tuple[str, str]]:
    """The scopes of single topics. One query."""
    topics = Topic.objects.values_list("key", "name")
    return [(topic_scope(key), f"mail about “{name}”") for key, name in topics]

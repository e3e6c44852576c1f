"""Unfold's admin classes, as generic as Django's stubs have them.

Type checkers see Django's own, from which unfold's derive.
"""

from typing import TYPE_CHECKING, Any

from django import forms
from django.core.paginator import Paginator as _Paginator

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin as ModelAdmin
    from django.contrib.admin import StackedInline as StackedInline
    from django.contrib.admin import TabularInline as TabularInline
    from django.forms import ModelForm as ModelForm

    Paginator = _Paginator[Any]
else:
    import unfold.admin
    from django.contrib.admin.views.main import ERROR_FLAG, SEARCH_VAR
    from django.db.models import JSONField, TextField
    from django.http import HttpResponseRedirect
    from unfold.widgets import UnfoldAdminExpandableTextareaWidget

    # Django's stubs make these generic, Django itself does not.
    class ModelAdmin(unfold.admin.ModelAdmin):
        __class_getitem__ = classmethod(lambda cls, _models: cls)
        formfield_overrides = {
            TextField: {"widget": UnfoldAdminExpandableTextareaWidget},
            JSONField: {"widget": UnfoldAdminExpandableTextareaWidget({"class": "ea-editor"})},
        }

        def changelist_view(self, request, extra_context=None):
            # PostgreSQL takes no NUL in a text. The search has a form of its own that refuses it.
            told = {k: v for k, v in request.GET.lists() if k != SEARCH_VAR}
            if any("\0" in text for name in told for text in (name, *told[name])):
                return HttpResponseRedirect(f"{request.path}?{ERROR_FLAG}=1")
            return super().changelist_view(request, extra_context)

    class StackedInline(unfold.admin.StackedInline):
        __class_getitem__ = classmethod(lambda cls, _models: cls)

    class TabularInline(unfold.admin.TabularInline):
        __class_getitem__ = classmethod(lambda cls, _models: cls)

    class ModelForm(forms.ModelForm):
        __class_getitem__ = classmethod(lambda cls, _model: cls)

    Paginator = _Paginator

"""The admin's words (`common.admin`) for templates: `{% load emailauto %}`.

Imported when used: unfold renders a widget while it is being imported, which loads every tag
library, and `common.admin` imports unfold.
"""

from datetime import datetime

from django import template
from django.utils.safestring import SafeString

register = template.Library()


@register.filter
def ago(moment: datetime | None) -> SafeString | str:
    from common.admin import ago

    return ago(moment)


@register.filter
def pretty(value: object) -> SafeString:
    from common.admin import pretty

    return pretty(value)


@register.filter
def badge(text: object, tone: str = "grey") -> SafeString:
    from common.admin import badge

    return badge(text, tone)

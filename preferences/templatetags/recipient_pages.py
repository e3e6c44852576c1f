"""What the templates of the recipients' pages need besides Django's own."""

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()


@register.filter
def isolated(text: object) -> SafeString:
    """Somebody else's words amid ours: whichever way they are written, and whatever marks that turn
    the direction are in them, the sentence around them reads as it should."""
    return format_html("<bdi>{}</bdi>", text)

"""The admin's words for templates: `{% load emailauto %}`."""

from django import template

from common.admin import words

register = template.Library()
register.filter("ago", words.ago)
register.filter("pretty", words.pretty)
register.filter("badge", words.badge)

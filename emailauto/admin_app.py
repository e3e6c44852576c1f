"""The admin as an app that is not looked for until somebody shows it."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.apps import SimpleAdminConfig
from django.contrib.admin.checks import check_admin_app, check_dependencies
from django.core import checks


class AdminConfig(SimpleAdminConfig):
    """`emailauto.urls` and the system checks find the admin's classes, not the start of every
    process: a worker never shows a page, and they would be a tenth of its memory."""

    def ready(self) -> None:
        checks.register(check_dependencies, checks.Tags.admin)
        checks.register(_check_what_is_found, checks.Tags.admin)


def _check_what_is_found(**kwargs: Any) -> list[checks.CheckMessage]:
    admin.autodiscover()
    return list(check_admin_app(**kwargs))
